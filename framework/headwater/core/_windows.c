/* Records into tumbling windows, and the windows that a watermark closes, in C: `fold_windows`, which hot.py describes.

   Nothing of a record is changed before all that may fail for it is done. A record that isn't a usual one is left untouched,
   and so are those behind it: Python takes that one, with all its rules, and hands on the rest. */

#include "_hot.h"

#include <stdint.h>
#include <string.h>

#define NEVER INT64_MIN
#define FAR (INT64_C(1) << 61) /* times beyond are left to Python, whose numbers have no end */
#define TIMES 16               /* bytes of start and end in a window's key */

static PyObject *heappush, *heappop, *name_key, *name_start, *name_end;

int
windows_begin(void)
{
    PyObject *heapq = PyImport_ImportModule("heapq");
    if (heapq == NULL)
        return -1;
    heappush = PyObject_GetAttrString(heapq, "heappush");
    heappop = PyObject_GetAttrString(heapq, "heappop");
    Py_DECREF(heapq);
    name_key = PyUnicode_InternFromString("key");
    name_start = PyUnicode_InternFromString("start");
    name_end = PyUnicode_InternFromString("end");
    return heappush && heappop && name_key && name_start && name_end ? 0 : -1;
}

/* One call's arguments; all borrowed. */
typedef struct {
    /* the declaration */
    long long size, offset, grace;
    PyObject *takes;  /* tuple, by aggregate: None counts all, a name sums that field, else step(accumulator, value) */
    PyObject *zeros;  /* tuple */
    PyObject *names;  /* tuple */
    PyObject *result; /* result(accumulator) -> dict; None: the accumulator is the result */
    PyObject *shown;  /* dict: keys as they are shown */
    PyObject *show;   /* show(key), where it isn't known yet */
    int is_read;
    /* the state */
    PyObject *groups, *dirty; /* dicts by window key: accumulator or None, row of the last change */
    PyObject *fresh;          /* set of window keys that the open epoch has made */
    PyObject *waiting, *ends; /* dict by end of lists of window keys; heap of these ends */
    /* results so far: lists */
    PyObject *made_rows, *made_keys, *made_values, *made_times;
} Fold;

static void
put_time(unsigned char *at, int64_t time)
{
    uint64_t biased = (uint64_t)time ^ (UINT64_C(1) << 63);
    for (int byte = 7; byte >= 0; byte--, biased >>= 8)
        at[byte] = (unsigned char)biased;
}

static int64_t
get_time(const unsigned char *at)
{
    uint64_t biased = 0;
    for (int byte = 0; byte < 8; byte++)
        biased = biased << 8 | at[byte];
    return (int64_t)(biased ^ (UINT64_C(1) << 63));
}

/* As `core.windowed.window_key`: zeros inside the key are followed by a one, two zeros end it. */
static PyObject *
window_key(PyObject *key, int64_t start, int64_t end)
{
    const char *data = PyBytes_AS_STRING(key);
    Py_ssize_t size = PyBytes_GET_SIZE(key), zeros = 0;
    for (const char *at = data; (at = memchr(at, 0, (size_t)(data + size - at))) != NULL; at++)
        zeros++;
    PyObject *place = PyBytes_FromStringAndSize(NULL, size + zeros + 2 + TIMES);
    if (place == NULL)
        return NULL;
    char *out = PyBytes_AS_STRING(place);
    if (zeros == 0) {
        memcpy(out, data, (size_t)size);
        out += size;
    }
    else {
        for (Py_ssize_t at = 0; at < size; at++) {
            *out++ = data[at];
            if (data[at] == 0)
                *out++ = 1;
        }
    }
    *out++ = 0;
    *out++ = 0;
    put_time((unsigned char *)out, start);
    put_time((unsigned char *)out + 8, end);
    return place;
}

/* Give the key of a window key (a new reference) and its start. */
static PyObject *
split_window_key(PyObject *place, int64_t *start)
{
    const char *data = PyBytes_AS_STRING(place);
    Py_ssize_t size = PyBytes_GET_SIZE(place) - TIMES - 2, kept = 0;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "this is not the key of a windowed row");
        return NULL;
    }
    *start = get_time((const unsigned char *)data + size + 2);
    PyObject *key = PyBytes_FromStringAndSize(data, size);
    if (key == NULL || memchr(data, 0, (size_t)size) == NULL)
        return key;
    char *out = PyBytes_AS_STRING(key);
    for (Py_ssize_t at = 0; at < size; at++) {
        out[kept++] = data[at];
        at += data[at] == 0; /* the one behind it */
    }
    return _PyBytes_Resize(&key, kept) < 0 ? NULL : key;
}

/* Give what a value has under a field's name, as `stream.plan.getter` does. */
static PyObject *
field(PyObject *value, PyObject *name)
{
    return PyDict_Check(value) ? PyObject_GetItem(value, name) : PyObject_GetAttr(value, name);
}

/* Give the accumulator of one aggregate with one value more. */
static PyObject *
step(PyObject *take, PyObject *acc, PyObject *value)
{
    if (take == Py_None) {
        int overflow;
        long long count = PyLong_AsLongLongAndOverflow(acc, &overflow);
        if (count == -1 && PyErr_Occurred())
            return NULL;
        return PyLong_FromLongLong(count + 1);
    }
    if (!PyUnicode_CheckExact(take)) {
        PyObject *both[] = {acc, value};
        return PyObject_Vectorcall(take, both, 2, NULL);
    }
    PyObject *found = field(value, take);
    if (found == NULL || acc == Py_None)
        return found;
    if (found == Py_None) {
        Py_DECREF(found);
        return Py_NewRef(acc);
    }
    PyObject *sum = PyFloat_CheckExact(found) && PyFloat_CheckExact(acc)
                        ? PyFloat_FromDouble(PyFloat_AS_DOUBLE(acc) + PyFloat_AS_DOUBLE(found))
                        : PyNumber_Add(acc, found);
    Py_DECREF(found);
    return sum;
}

/* Give the accumulators of a window with one value more; `there` is NULL for a new window. */
static PyObject *
folded(Fold *fold, PyObject *there, PyObject *value)
{
    Py_ssize_t count = PyTuple_GET_SIZE(fold->takes);
    if (there != NULL && (!PyList_CheckExact(there) || PyList_GET_SIZE(there) != count)) {
        PyErr_SetString(PyExc_TypeError, "a window's accumulators are a list, one for each aggregate");
        return NULL;
    }
    PyObject *accs = PyList_New(count);
    for (Py_ssize_t at = 0; accs != NULL && at < count; at++) {
        /* A step is the user's code: what it is given must outlive it. */
        PyObject *acc = Py_NewRef(there == NULL ? PyTuple_GET_ITEM(fold->zeros, at) : PyList_GET_ITEM(there, at));
        PyObject *one = step(PyTuple_GET_ITEM(fold->takes, at), acc, value);
        Py_DECREF(acc);
        if (one == NULL)
            Py_CLEAR(accs);
        else
            PyList_SET_ITEM(accs, at, one);
    }
    return accs;
}

/* Have a window wait for its end. */
static int
begin(Fold *fold, PyObject *place, int64_t end)
{
    PyObject *number = PyLong_FromLongLong(end);
    if (number == NULL)
        return -1;
    int done = -1;
    PyObject *places = PyDict_GetItemWithError(fold->waiting, number);
    if (places != NULL) {
        done = PyList_Append(places, place);
    }
    else if (!PyErr_Occurred()) {
        PyObject *fresh = PyList_New(1), *none = NULL;
        if (fresh != NULL) {
            PyList_SET_ITEM(fresh, 0, Py_NewRef(place));
            if (PyDict_SetItem(fold->waiting, number, fresh) == 0)
                none = PyObject_CallFunctionObjArgs(heappush, fold->ends, number, NULL);
            Py_DECREF(fresh);
        }
        done = none == NULL ? -1 : 0;
        Py_XDECREF(none);
    }
    Py_DECREF(number);
    return done;
}

/* Add a record to its window. 1: done; 0: left to Python, nothing is changed; -1: an error that is none of the record's. */
static int
add(Fold *fold, PyObject *row, PyObject *place, PyObject *value, int64_t end)
{
    PyObject *there = PyDict_GetItemWithError(fold->groups, place);
    if (there == NULL && PyErr_Occurred())
        return -1;
    int is_known = there != NULL, is_open = is_known && there != Py_None;
    Py_XINCREF(there);
    PyObject *accs = folded(fold, is_open ? there : NULL, value);
    Py_XDECREF(there);
    if (accs == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return -1;
        PyErr_Clear(); /* Python does it again, and says what is wrong with which record */
        return 0;
    }
    int done = PyDict_SetItem(fold->groups, place, accs);
    Py_DECREF(accs);
    if (done < 0 || PyDict_SetItem(fold->dirty, place, row) < 0)
        return -1;
    if (!is_known && PySet_Add(fold->fresh, place) < 0)
        return -1;
    return is_open || begin(fold, place, end) == 0 ? 1 : -1;
}

/* Give the result of a window: {"key": …, "start": …, "end": …} and its aggregates. */
static PyObject *
result_of(Fold *fold, PyObject *key, int64_t start, PyObject *end, PyObject *accs)
{
    PyObject *result = PyDict_New(), *first = PyLong_FromLongLong(start);
    PyObject *shown = PyDict_GetItemWithError(fold->shown, key);
    shown = shown != NULL ? Py_NewRef(shown) : PyErr_Occurred() ? NULL : PyObject_CallOneArg(fold->show, key);
    int done = -1;
    if (result != NULL && first != NULL && shown != NULL && PyDict_SetItem(result, name_key, shown) == 0
        && PyDict_SetItem(result, name_start, first) == 0)
        done = PyDict_SetItem(result, name_end, end);
    Py_XDECREF(first);
    Py_XDECREF(shown);
    if (done == 0 && fold->result != Py_None) {
        PyObject *values = PyObject_CallOneArg(fold->result, accs);
        done = values == NULL ? -1 : PyDict_Update(result, values);
        Py_XDECREF(values);
    }
    else if (done == 0 && !PyList_CheckExact(accs)) {
        PyErr_SetString(PyExc_TypeError, "a window's accumulators are a list");
        done = -1;
    }
    else {
        for (Py_ssize_t at = 0; done == 0 && at < PyTuple_GET_SIZE(fold->names) && at < PyList_GET_SIZE(accs); at++)
            done = PyDict_SetItem(result, PyTuple_GET_ITEM(fold->names, at), PyList_GET_ITEM(accs, at));
    }
    if (done < 0)
        Py_CLEAR(result);
    return result;
}

/* Note a result of a window that closes. */
static int
tell(Fold *fold, PyObject *row, PyObject *place, PyObject *end, PyObject *time, PyObject *accs)
{
    int64_t start;
    PyObject *key = split_window_key(place, &start);
    PyObject *result = key == NULL ? NULL : result_of(fold, key, start, end, accs);
    int done = -1;
    if (result != NULL && PyList_Append(fold->made_rows, row) == 0 && PyList_Append(fold->made_keys, key) == 0
        && PyList_Append(fold->made_values, result) == 0)
        done = PyList_Append(fold->made_times, time);
    Py_XDECREF(key);
    Py_XDECREF(result);
    return done;
}

/* Take a closed window from the state. One that the open epoch made leaves no trace. */
static int
leave(Fold *fold, PyObject *row, PyObject *place)
{
    int was_fresh = PySet_Discard(fold->fresh, place);
    if (was_fresh < 0)
        return -1;
    if (was_fresh)
        return PyDict_DelItem(fold->groups, place) < 0 ? -1 : PyDict_DelItem(fold->dirty, place);
    return PyDict_SetItem(fold->groups, place, Py_None) < 0 ? -1 : PyDict_SetItem(fold->dirty, place, row);
}

/* Close all windows of the earliest end, in the order of key and start. */
static int
close_first(Fold *fold, PyObject *row)
{
    PyObject *end = PyObject_CallOneArg(heappop, fold->ends), *places = NULL, *time = NULL;
    if (end != NULL)
        places = Py_XNewRef(PyDict_GetItemWithError(fold->waiting, end));
    if (places == NULL || !PyList_CheckExact(places) || PyDict_DelItem(fold->waiting, end) < 0
        || PyList_Sort(places) < 0)
        goto failed;
    time = PyLong_FromLongLong(PyLong_AsLongLong(end) - 1);
    if (time == NULL || PyErr_Occurred())
        goto failed;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(places); at++) {
        PyObject *place = PyList_GET_ITEM(places, at);
        PyObject *accs = PyDict_GetItemWithError(fold->groups, place);
        if (accs == NULL && PyErr_Occurred())
            goto failed;
        /* A window whose only record failed was undone in the state, but not here. */
        if (accs == NULL || accs == Py_None)
            continue;
        Py_INCREF(accs);
        int done = fold->is_read ? tell(fold, row, place, end, time, accs) : 0;
        Py_DECREF(accs);
        if (done < 0 || leave(fold, row, place) < 0)
            goto failed;
    }
    Py_DECREF(end);
    Py_DECREF(places);
    Py_DECREF(time);
    return 0;
failed:
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_RuntimeError, "the ends of open windows and the windows don't agree");
    Py_XDECREF(end);
    Py_XDECREF(places);
    Py_XDECREF(time);
    return -1;
}

/* Give the watermark at which the next window closes, or the greatest number. */
static int64_t
due_of(Fold *fold)
{
    if (PyList_GET_SIZE(fold->ends) == 0)
        return INT64_MAX;
    int64_t end = PyLong_AsLongLong(PyList_GET_ITEM(fold->ends, 0));
    return end > INT64_MAX - fold->grace ? INT64_MAX : end + fold->grace;
}

/* Read a time that is near enough to be reckoned with, or the watermark before anything is known; tell 0 for others. */
static int
near(PyObject *number, int64_t *time)
{
    int overflow;
    *time = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (*time == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return overflow == 0 && ((-FAR < *time && *time < FAR) || *time == NEVER);
}

static int
are_lists(PyObject *columns[6], Py_ssize_t size)
{
    for (int at = 0; at < 6; at++) {
        if (!PyList_CheckExact(columns[at]) || PyList_GET_SIZE(columns[at]) < size)
            return 0;
    }
    return 1;
}

PyObject *
fold_windows(PyObject *Py_UNUSED(module), PyObject *args)
{
    Fold fold;
    PyObject *columns[6], *watermark;
    Py_ssize_t at;
    if (!PyArg_ParseTuple(args, "(LLLO!O!O!OO!Op)(O!O!O!O!O!)(OOOOOO)nO(O!O!O!O!):fold_windows", &fold.size, &fold.offset,
                          &fold.grace, &PyTuple_Type, &fold.takes, &PyTuple_Type, &fold.zeros, &PyTuple_Type, &fold.names,
                          &fold.result, &PyDict_Type, &fold.shown, &fold.show, &fold.is_read, &PyDict_Type, &fold.groups,
                          &PyDict_Type, &fold.dirty, &PySet_Type, &fold.fresh, &PyDict_Type, &fold.waiting, &PyList_Type,
                          &fold.ends, &columns[0], &columns[1], &columns[2], &columns[3], &columns[4], &columns[5], &at,
                          &watermark, &PyList_Type, &fold.made_rows, &PyList_Type, &fold.made_keys, &PyList_Type,
                          &fold.made_values, &PyList_Type, &fold.made_times))
        return NULL;
    int64_t before;
    if (!PyList_CheckExact(columns[0]) || !are_lists(columns, PyList_GET_SIZE(columns[0]))
        || PyTuple_GET_SIZE(fold.takes) != PyTuple_GET_SIZE(fold.zeros) || fold.size <= 0 || at < 0) {
        PyErr_SetString(PyExc_TypeError, "columns are lists of one length, takes and zeros tuples of one length");
        return NULL;
    }
    if (!near(watermark, &before))
        return PyLong_FromSsize_t(at);
    int64_t due = due_of(&fold);
    for (; at < PyList_GET_SIZE(columns[0]); at++) {
        /* What a step of the user's might do to the columns is nothing good, but it can't be a crash. */
        if (!are_lists(columns, PyList_GET_SIZE(columns[0])))
            break;
        PyObject *row = PyList_GET_ITEM(columns[0], at), *key = PyList_GET_ITEM(columns[1], at);
        PyObject *value = PyList_GET_ITEM(columns[2], at);
        int64_t time, own, task;
        if (!near(PyList_GET_ITEM(columns[4], at), &own) || !near(PyList_GET_ITEM(columns[5], at), &task))
            break;
        if (value != Py_None) {
            if (!PyBytes_CheckExact(key) || !near(PyList_GET_ITEM(columns[3], at), &time) || time == NEVER)
                break;
            if (own < before)
                own = before;
            int64_t into = (time - fold.offset) % fold.size;
            int64_t start = time - (into < 0 ? into + fold.size : into), end = start + fold.size;
            if (own != NEVER && end + fold.grace <= own)
                break;
            PyObject *place = window_key(key, start, end);
            if (place == NULL)
                return NULL;
            Py_INCREF(row);
            Py_INCREF(value);
            int done = add(&fold, row, place, value, end);
            Py_DECREF(row);
            Py_DECREF(value);
            Py_DECREF(place);
            if (done < 0)
                return NULL;
            if (done == 0)
                break;
            if (end + fold.grace < due)
                due = end + fold.grace;
        }
        before = task;
        while (due <= task && PyList_GET_SIZE(fold.ends)) {
            Py_INCREF(row);
            int done = close_first(&fold, row);
            Py_DECREF(row);
            if (done < 0)
                return NULL;
            due = due_of(&fold);
        }
    }
    return PyLong_FromSsize_t(at);
}
