/* What is done for every record and every row of a table, in C: the classes of hot.py, which says what they promise.

   Each function here takes the usual case and hands everything else to Python (`_read`, `_write`, `_delete`, `more`), so
   that there is one place for what is rare, and hot_python.py does the same with the same words. Only public C API. */

#include "_hot.h"

#include <structmember.h>

#define NUMBER_MAX 1e300 /* that of hot.py */

static PyObject *CURRENT; /* the context variable with the frame in hand */
static PyObject *name_read, *name_write, *name_delete;

/* HotFrame: row and table parts of an agent instance. */

typedef struct {
    PyObject_HEAD
    Py_ssize_t row;
    PyObject *parts; /* dict of HotPart by table number */
} HotFrame;

static int
frame_traverse(HotFrame *self, visitproc visit, void *arg)
{
    Py_VISIT(self->parts);
    return 0;
}

static int
frame_clear(HotFrame *self)
{
    Py_CLEAR(self->parts);
    return 0;
}

static void
frame_dealloc(HotFrame *self)
{
    PyObject_GC_UnTrack(self);
    frame_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef frame_members[] = {
    {"row", T_PYSSIZET, offsetof(HotFrame, row), 0, NULL},
    {"parts", T_OBJECT_EX, offsetof(HotFrame, parts), 0, NULL},
    {NULL},
};

static PyTypeObject HotFrameType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "headwater.core._hot.HotFrame",
    .tp_basicsize = sizeof(HotFrame),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)frame_dealloc,
    .tp_traverse = (traverseproc)frame_traverse,
    .tp_clear = (inquiry)frame_clear,
    .tp_members = frame_members,
};

/* HotPart: cache and open changes of one table's partition. */

typedef struct {
    PyObject_HEAD
    PyObject *hot;         /* dict */
    PyObject *keys;        /* list */
    PyObject *values;      /* list, as long */
    PyObject *rows;        /* list, as long */
    PyObject *number_kind; /* type or None */
} HotPart;

static int
part_traverse(HotPart *self, visitproc visit, void *arg)
{
    Py_VISIT(self->hot);
    Py_VISIT(self->keys);
    Py_VISIT(self->values);
    Py_VISIT(self->rows);
    Py_VISIT(self->number_kind);
    return 0;
}

static int
part_clear(HotPart *self)
{
    Py_CLEAR(self->hot);
    Py_CLEAR(self->keys);
    Py_CLEAR(self->values);
    Py_CLEAR(self->rows);
    Py_CLEAR(self->number_kind);
    return 0;
}

static void
part_dealloc(HotPart *self)
{
    PyObject_GC_UnTrack(self);
    part_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef part_members[] = {
    {"hot", T_OBJECT_EX, offsetof(HotPart, hot), 0, NULL},
    {"keys", T_OBJECT_EX, offsetof(HotPart, keys), 0, NULL},
    {"values", T_OBJECT_EX, offsetof(HotPart, values), 0, NULL},
    {"rows", T_OBJECT_EX, offsetof(HotPart, rows), 0, NULL},
    {"number_kind", T_OBJECT_EX, offsetof(HotPart, number_kind), 0, NULL},
    {NULL},
};

static PyTypeObject HotPartType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "headwater.core._hot.HotPart",
    .tp_basicsize = sizeof(HotPart),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)part_dealloc,
    .tp_traverse = (traverseproc)part_traverse,
    .tp_clear = (inquiry)part_clear,
    .tp_members = part_members,
};

/* HotTable: reading and setting rows of the part in hand. */

typedef struct {
    PyObject_HEAD
    PyObject *number;
} HotTable;

/* Give the frame in hand (a new reference) and its part of the table (a borrowed one, that the frame keeps alive). Either may
   be NULL, without an error where that is so because there is none. */
static HotPart *
part_in_hand(HotTable *self, PyObject **frame)
{
    *frame = NULL;
    if (PyContextVar_Get(CURRENT, NULL, frame) < 0 || *frame == NULL)
        return NULL;
    if (!PyObject_TypeCheck(*frame, &HotFrameType))
        return NULL;
    PyObject *parts = ((HotFrame *)*frame)->parts;
    if (parts == NULL || !PyDict_CheckExact(parts) || self->number == NULL)
        return NULL;
    PyObject *part = PyDict_GetItemWithError(parts, self->number);
    if (part == NULL || !PyObject_TypeCheck(part, &HotPartType))
        return NULL;
    HotPart *found = (HotPart *)part;
    if (found->hot == NULL || !PyDict_CheckExact(found->hot))
        return NULL;
    return found;
}

static PyObject *
table_get(HotTable *self, PyObject *key)
{
    PyObject *frame, *value = NULL;
    HotPart *part = part_in_hand(self, &frame);
    if (part != NULL) {
        value = PyDict_GetItemWithError(part->hot, key);
        Py_XINCREF(value);
    }
    Py_XDECREF(frame);
    if (value != NULL)
        return value;
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError))
            return NULL;
        /* A key that can't be a dictionary's: the long way says which. */
        PyErr_Clear();
    }
    return PyObject_CallMethodOneArg((PyObject *)self, name_read, key);
}

/* Tell whether a value is a number that may be encoded later: of the kind the part last took, and of moderate size. */
static int
is_plain(HotPart *part, PyObject *value)
{
    if ((PyObject *)Py_TYPE(value) != part->number_kind)
        return 0;
    if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        return -NUMBER_MAX < number && number < NUMBER_MAX;
    }
    if (PyLong_Check(value)) {
        int overflow;
        PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow == 0; /* a longer one goes the long way, which takes it just as well */
    }
    return 0;
}

/* Note a change: all three columns grow, or none. */
static int
note(HotPart *part, PyObject *key, PyObject *value, Py_ssize_t row)
{
    PyObject *keys = part->keys, *values = part->values, *rows = part->rows;
    PyObject *number = PyLong_FromSsize_t(row);
    if (number == NULL)
        return -1;
    int done = PyList_Append(rows, number);
    Py_DECREF(number);
    if (done < 0)
        return -1;
    if (PyList_Append(values, value) == 0) {
        if (PyList_Append(keys, key) == 0)
            return 0;
        PyList_SetSlice(values, PyList_GET_SIZE(values) - 1, PyList_GET_SIZE(values), NULL);
    }
    PyList_SetSlice(rows, PyList_GET_SIZE(rows) - 1, PyList_GET_SIZE(rows), NULL);
    return -1;
}

static int
are_lists(HotPart *part)
{
    return part->keys != NULL && PyList_CheckExact(part->keys) && part->values != NULL
           && PyList_CheckExact(part->values) && part->rows != NULL && PyList_CheckExact(part->rows);
}

static int
table_set(HotTable *self, PyObject *key, PyObject *value)
{
    if (value == NULL) {
        PyObject *none = PyObject_CallMethodOneArg((PyObject *)self, name_delete, key);
        Py_XDECREF(none);
        return none == NULL ? -1 : 0;
    }
    PyObject *frame;
    HotPart *part = part_in_hand(self, &frame);
    if (part != NULL && is_plain(part, value) && are_lists(part)) {
        int known = PyDict_Contains(part->hot, key);
        if (known > 0) {
            /* The part and what it holds stay while the frame does; the key's and value's own code isn't run from here on. */
            Py_INCREF(part);
            int done = note(part, key, value, ((HotFrame *)frame)->row);
            if (done == 0)
                done = PyDict_SetItem(part->hot, key, value);
            Py_DECREF(part);
            Py_DECREF(frame);
            return done;
        }
    }
    Py_XDECREF(frame);
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError))
            return -1;
        PyErr_Clear();
    }
    PyObject *none = PyObject_CallMethodObjArgs((PyObject *)self, name_write, key, value, NULL);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

static void
table_dealloc(HotTable *self)
{
    Py_CLEAR(self->number);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef table_members[] = {
    {"number", T_OBJECT_EX, offsetof(HotTable, number), 0, NULL},
    {NULL},
};

static PyMappingMethods table_mapping = {
    .mp_subscript = (binaryfunc)table_get,
    .mp_ass_subscript = (objobjargproc)table_set,
};

static PyTypeObject HotTableType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "headwater.core._hot.HotTable",
    .tp_basicsize = sizeof(HotTable),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)table_dealloc,
    .tp_as_mapping = &table_mapping,
    .tp_members = table_members,
};

/* Entries: what `async for` reads; Next: the awaitable of one value. */

typedef struct {
    PyObject_HEAD
    HotFrame *frame;
    PyObject *more;   /* returns a coroutine that loads what follows and returns the first value of it */
    PyObject *rows;   /* a list or tuple of row numbers; NULL where they count up from `first` */
    PyObject *values; /* a list or tuple */
    Py_ssize_t first, at, size;
    PyObject *ready; /* a Next to be used again */
} Entries;

typedef struct {
    PyObject_HEAD
    Entries *entries;
    PyObject *inner; /* the coroutine of `more` where nothing was left when the value was asked for */
} Next;

static PyTypeObject NextType;
static PyTypeObject EntriesType;

static PyObject *
take(Entries *self)
{
    Py_ssize_t at = self->at;
    if (self->rows == NULL) {
        self->frame->row = self->first + at;
    }
    else {
        Py_ssize_t row = PyLong_AsSsize_t(PySequence_Fast_GET_ITEM(self->rows, at));
        if (row == -1 && PyErr_Occurred())
            return NULL;
        self->frame->row = row;
    }
    self->at = at + 1;
    return Py_NewRef(PySequence_Fast_GET_ITEM(self->values, at));
}

static PySendResult
next_send(Next *self, PyObject *sent, PyObject **result)
{
    if (self->inner == NULL) {
        Entries *entries = self->entries;
        /* A list may have been shortened by whoever gave it. */
        if (entries->at < entries->size && entries->at < PySequence_Fast_GET_SIZE(entries->values)) {
            *result = take(entries);
            return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
        }
        self->inner = PyObject_CallNoArgs(entries->more);
        if (self->inner == NULL) {
            *result = NULL;
            return PYGEN_ERROR;
        }
    }
    PySendResult how = PyIter_Send(self->inner, sent, result);
    if (how != PYGEN_NEXT)
        Py_CLEAR(self->inner);
    return how;
}

static PyObject *
next_step(Next *self, PyObject *sent)
{
    PyObject *result;
    switch (next_send(self, sent, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN: {
        /* Made by hand: an exception set with a tuple as its value would be taken apart. */
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_DECREF(result);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
        return NULL;
    }
    default:
        return NULL;
    }
}

static PyObject *
next_iternext(Next *self)
{
    return next_step(self, Py_None);
}

static PyObject *
next_throw(Next *self, PyObject *args)
{
    if (self->inner != NULL) {
        PyObject *method = PyObject_GetAttrString(self->inner, "throw");
        if (method == NULL)
            return NULL;
        PyObject *result = PyObject_CallObject(method, args);
        Py_DECREF(method);
        if (result == NULL)
            Py_CLEAR(self->inner);
        return result;
    }
    PyObject *kind, *error = NULL, *trace = NULL;
    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &kind, &error, &trace))
        return NULL;
    if (PyExceptionInstance_Check(kind))
        PyErr_SetObject((PyObject *)Py_TYPE(kind), kind);
    else
        PyErr_SetObject(kind, error);
    return NULL;
}

static PyObject *
next_close(Next *self, PyObject *Py_UNUSED(ignored))
{
    if (self->inner != NULL) {
        PyObject *inner = self->inner;
        self->inner = NULL;
        PyObject *none = PyObject_CallMethod(inner, "close", NULL);
        Py_DECREF(inner);
        return none;
    }
    Py_RETURN_NONE;
}

static int
next_traverse(Next *self, visitproc visit, void *arg)
{
    Py_VISIT(self->entries);
    Py_VISIT(self->inner);
    return 0;
}

static int
next_clear(Next *self)
{
    Py_CLEAR(self->entries);
    Py_CLEAR(self->inner);
    return 0;
}

static void
next_dealloc(Next *self)
{
    PyObject_GC_UnTrack(self);
    next_clear(self);
    PyObject_GC_Del(self);
}

static PyMethodDef next_methods[] = {
    {"send", (PyCFunction)next_step, METH_O, NULL},
    {"throw", (PyCFunction)next_throw, METH_VARARGS, NULL},
    {"close", (PyCFunction)next_close, METH_NOARGS, NULL},
    {NULL},
};

static PyAsyncMethods next_async = {
    .am_await = PyObject_SelfIter,
    .am_send = (sendfunc)next_send,
};

static PyTypeObject NextType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "headwater.core._hot.Next",
    .tp_basicsize = sizeof(Next),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = (destructor)next_dealloc,
    .tp_traverse = (traverseproc)next_traverse,
    .tp_clear = (inquiry)next_clear,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = (iternextfunc)next_iternext,
    .tp_as_async = &next_async,
    .tp_methods = next_methods,
};

static PyObject *
entries_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *frame, *more;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Entries takes its arguments by place");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!O:Entries", &HotFrameType, &frame, &more))
        return NULL;
    Entries *self = (Entries *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->frame = (HotFrame *)Py_NewRef(frame);
        self->more = Py_NewRef(more);
    }
    return (PyObject *)self;
}

static PyObject *
entries_clear_values(Entries *self, PyObject *Py_UNUSED(ignored))
{
    self->at = self->size = 0;
    Py_CLEAR(self->rows);
    Py_CLEAR(self->values);
    Py_RETURN_NONE;
}

/* Set `first` from a range that counts up by one; tell 0 for anything else. */
static int
counts_up(PyObject *rows, Py_ssize_t *first)
{
    if (!PyRange_Check(rows))
        return 0;
    PyObject *step = PyObject_GetAttrString(rows, "step");
    PyObject *start = PyObject_GetAttrString(rows, "start");
    int is_one = step != NULL && PyLong_AsLong(step) == 1;
    if (start != NULL)
        *first = PyLong_AsSsize_t(start);
    Py_XDECREF(step);
    Py_XDECREF(start);
    return PyErr_Occurred() ? -1 : is_one;
}

static PyObject *
entries_load(Entries *self, PyObject *args)
{
    PyObject *rows, *values;
    Py_ssize_t first = 0, size;
    if (!PyArg_ParseTuple(args, "OO:load", &rows, &values))
        return NULL;
    int is_range = counts_up(rows, &first);
    if (is_range < 0)
        return NULL;
    PyObject *rows_list = NULL, *values_list = PySequence_Fast(values, "values are a sequence");
    if (values_list == NULL)
        return NULL;
    size = PySequence_Fast_GET_SIZE(values_list);
    if (is_range) {
        Py_ssize_t count = PyObject_Size(rows);
        size = count < size ? count : size;
    }
    else {
        rows_list = PySequence_Fast(rows, "rows are a sequence");
        if (rows_list == NULL) {
            Py_DECREF(values_list);
            return NULL;
        }
        Py_ssize_t count = PySequence_Fast_GET_SIZE(rows_list);
        size = count < size ? count : size;
    }
    Py_XSETREF(self->rows, rows_list);
    Py_XSETREF(self->values, values_list);
    self->first = first;
    self->at = 0;
    self->size = size;
    Py_RETURN_NONE;
}

static PyObject *
entries_take(Entries *self, PyObject *Py_UNUSED(ignored))
{
    if (self->at >= self->size || self->at >= PySequence_Fast_GET_SIZE(self->values)) {
        PyErr_SetString(PyExc_IndexError, "nothing is left to take");
        return NULL;
    }
    return take(self);
}

static PyObject *
entries_anext(Entries *self)
{
    if (self->at >= self->size)
        return PyObject_CallNoArgs(self->more);
    /* Nobody else has the last one: it is done with. */
    if (self->ready != NULL && Py_REFCNT(self->ready) == 1 && ((Next *)self->ready)->inner == NULL)
        return Py_NewRef(self->ready);
    Next *fresh = PyObject_GC_New(Next, &NextType);
    if (fresh == NULL)
        return NULL;
    fresh->entries = (Entries *)Py_NewRef(self);
    fresh->inner = NULL;
    PyObject_GC_Track(fresh);
    Py_XSETREF(self->ready, Py_NewRef((PyObject *)fresh));
    return (PyObject *)fresh;
}

static int
entries_traverse(Entries *self, visitproc visit, void *arg)
{
    Py_VISIT(self->frame);
    Py_VISIT(self->more);
    Py_VISIT(self->rows);
    Py_VISIT(self->values);
    Py_VISIT(self->ready);
    return 0;
}

static int
entries_clear(Entries *self)
{
    self->at = self->size = 0;
    Py_CLEAR(self->frame);
    Py_CLEAR(self->more);
    Py_CLEAR(self->rows);
    Py_CLEAR(self->values);
    Py_CLEAR(self->ready);
    return 0;
}

static void
entries_dealloc(Entries *self)
{
    PyObject_GC_UnTrack(self);
    entries_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef entries_methods[] = {
    {"load", (PyCFunction)entries_load, METH_VARARGS, NULL},
    {"clear", (PyCFunction)entries_clear_values, METH_NOARGS, NULL},
    {"take", (PyCFunction)entries_take, METH_NOARGS, NULL},
    {NULL},
};

static PyAsyncMethods entries_async = {
    .am_aiter = PyObject_SelfIter,
    .am_anext = (unaryfunc)entries_anext,
};

static PyTypeObject EntriesType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "headwater.core._hot.Entries",
    .tp_basicsize = sizeof(Entries),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = entries_new,
    .tp_dealloc = (destructor)entries_dealloc,
    .tp_traverse = (traverseproc)entries_traverse,
    .tp_clear = (inquiry)entries_clear,
    .tp_as_async = &entries_async,
    .tp_methods = entries_methods,
};

/* Where each key of a list comes last: from the end, the first time it is met. */
static PyObject *
last_indices(PyObject *Py_UNUSED(ignored), PyObject *keys)
{
    if (!PyList_CheckExact(keys)) {
        PyErr_SetString(PyExc_TypeError, "keys are a list");
        return NULL;
    }
    PyObject *met = PySet_New(NULL), *found = PyList_New(0);
    if (met == NULL || found == NULL)
        goto failed;
    for (Py_ssize_t at = PyList_GET_SIZE(keys) - 1, count = 0; at >= 0 && at < PyList_GET_SIZE(keys); at--) {
        if (PySet_Add(met, PyList_GET_ITEM(keys, at)) < 0)
            goto failed;
        if (PySet_GET_SIZE(met) == count)
            continue;
        count++;
        PyObject *number = PyLong_FromSsize_t(at);
        if (number == NULL)
            goto failed;
        int done = PyList_Append(found, number);
        Py_DECREF(number);
        if (done < 0)
            goto failed;
    }
    Py_DECREF(met);
    if (PyList_Reverse(found) < 0) {
        Py_DECREF(found);
        return NULL;
    }
    return found;
failed:
    Py_XDECREF(met);
    Py_XDECREF(found);
    return NULL;
}

static PyMethodDef module_methods[] = {
    {"fold_windows", fold_windows, METH_VARARGS, NULL},
    {"last_indices", last_indices, METH_O, NULL},
    {"lay_out", lay_out, METH_VARARGS, NULL},
    {"stage", stage, METH_VARARGS, NULL},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "headwater.core._hot",
    .m_size = -1,
    .m_methods = module_methods,
};

PyMODINIT_FUNC
PyInit__hot(void)
{
    PyTypeObject *types[] = {&HotFrameType, &HotPartType, &HotTableType, &EntriesType};
    const char *names[] = {"HotFrame", "HotPart", "HotTable", "Entries"};
    PyObject *made = PyModule_Create(&module);
    if (made == NULL)
        return NULL;
    name_read = PyUnicode_InternFromString("_read");
    name_write = PyUnicode_InternFromString("_write");
    name_delete = PyUnicode_InternFromString("_delete");
    CURRENT = PyContextVar_New("headwater_frame", Py_None);
    if (name_read == NULL || name_write == NULL || name_delete == NULL || CURRENT == NULL || PyType_Ready(&NextType) < 0
        || windows_begin() < 0 || sends_begin(made) < 0 || PyModule_AddObjectRef(made, "CURRENT", CURRENT) < 0)
        goto failed;
    for (size_t at = 0; at < sizeof(types) / sizeof(*types); at++) {
        if (PyType_Ready(types[at]) < 0
            || PyModule_AddObjectRef(made, names[at], (PyObject *)types[at]) < 0)
            goto failed;
    }
    return made;
failed:
    Py_DECREF(made);
    return NULL;
}
