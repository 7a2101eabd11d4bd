/* Staged records, and how they become columns of a log's partitions, in C: `Send`, `stage` and `lay_out`, which hot.py describes. */

#include "_hot.h"

#include <stdint.h>
#include <structmember.h>

#define VARINTS_MAX 96 /* nine numbers of ten bytes at most */

static PyObject *name_origin;

/* Send: one record that was sent. */

typedef struct {
    PyObject_HEAD
    Py_ssize_t row;
    PyObject *topic, *partition, *timestamp, *key, *value, *headers, *watermark;
} Send;

static PyTypeObject SendType;

static int
send_traverse(Send *self, visitproc visit, void *arg)
{
    Py_VISIT(self->topic);
    Py_VISIT(self->partition);
    Py_VISIT(self->timestamp);
    Py_VISIT(self->key);
    Py_VISIT(self->value);
    Py_VISIT(self->headers);
    Py_VISIT(self->watermark);
    return 0;
}

static int
send_clear(Send *self)
{
    Py_CLEAR(self->topic);
    Py_CLEAR(self->partition);
    Py_CLEAR(self->timestamp);
    Py_CLEAR(self->key);
    Py_CLEAR(self->value);
    Py_CLEAR(self->headers);
    Py_CLEAR(self->watermark);
    return 0;
}

static void
send_dealloc(Send *self)
{
    PyObject_GC_UnTrack(self);
    send_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
send_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"row", "topic", "partition", "timestamp", "key", "value", "headers", "watermark", NULL};
    Py_ssize_t row;
    PyObject *topic, *partition, *timestamp, *key, *value, *headers = NULL, *watermark = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nOOOOO|OO:Send", names, &row, &topic, &partition, &timestamp, &key,
                                     &value, &headers, &watermark))
        return NULL;
    headers = headers != NULL ? Py_NewRef(headers) : PyTuple_New(0);
    Send *self = headers == NULL ? NULL : (Send *)type->tp_alloc(type, 0);
    if (self == NULL) {
        Py_XDECREF(headers);
        return NULL;
    }
    self->row = row;
    self->topic = Py_NewRef(topic);
    self->partition = Py_NewRef(partition);
    self->timestamp = Py_NewRef(timestamp);
    self->key = Py_NewRef(key);
    self->value = Py_NewRef(value);
    self->headers = headers;
    self->watermark = Py_NewRef(watermark);
    return (PyObject *)self;
}

static PyObject *
send_fields(Send *self)
{
    return Py_BuildValue("(nOOOOOOO)", self->row, self->topic, self->partition, self->timestamp, self->key, self->value,
                         self->headers, self->watermark);
}

static PyObject *
send_compare(PyObject *self, PyObject *other, int how)
{
    if ((how != Py_EQ && how != Py_NE) || Py_TYPE(self) != &SendType || Py_TYPE(other) != &SendType)
        Py_RETURN_NOTIMPLEMENTED;
    PyObject *mine = send_fields((Send *)self), *others = send_fields((Send *)other), *found = NULL;
    if (mine != NULL && others != NULL)
        found = PyObject_RichCompare(mine, others, how);
    Py_XDECREF(mine);
    Py_XDECREF(others);
    return found;
}

static PyObject *
send_repr(Send *self)
{
    PyObject *fields = send_fields(self), *text = NULL;
    if (fields != NULL)
        text = PyUnicode_FromFormat("Send%R", fields);
    Py_XDECREF(fields);
    return text;
}

static PyMemberDef send_members[] = {
    {"row", T_PYSSIZET, offsetof(Send, row), 0, NULL},
    {"topic", T_OBJECT_EX, offsetof(Send, topic), 0, NULL},
    {"partition", T_OBJECT_EX, offsetof(Send, partition), 0, NULL},
    {"timestamp", T_OBJECT_EX, offsetof(Send, timestamp), 0, NULL},
    {"key", T_OBJECT_EX, offsetof(Send, key), 0, NULL},
    {"value", T_OBJECT_EX, offsetof(Send, value), 0, NULL},
    {"headers", T_OBJECT_EX, offsetof(Send, headers), 0, NULL},
    {"watermark", T_OBJECT_EX, offsetof(Send, watermark), 0, NULL},
    {NULL},
};

static PyTypeObject SendType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "headwater.core._hot.Send",
    .tp_basicsize = sizeof(Send),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = send_new,
    .tp_dealloc = (destructor)send_dealloc,
    .tp_traverse = (traverseproc)send_traverse,
    .tp_clear = (inquiry)send_clear,
    .tp_richcompare = send_compare,
    .tp_hash = PyObject_HashNotImplemented,
    .tp_repr = (reprfunc)send_repr,
    .tp_members = send_members,
};

/* Append sends of one topic; stop before the first whose key and value are longer than allowed. */
PyObject *
stage(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *sends, *topic, *rows, *keys, *values, *times, *watermark;
    Py_ssize_t bytes_max, at;
    if (!PyArg_ParseTuple(args, "O!OO!O!O!O!On:stage", &PyList_Type, &sends, &topic, &PyList_Type, &rows, &PyList_Type,
                          &keys, &PyList_Type, &values, &PyList_Type, &times, &watermark, &bytes_max))
        return NULL;
    Py_ssize_t size = PyList_GET_SIZE(rows);
    if (PyList_GET_SIZE(keys) != size || PyList_GET_SIZE(values) != size || PyList_GET_SIZE(times) != size) {
        PyErr_SetString(PyExc_ValueError, "rows, keys, values and times are of one length");
        return NULL;
    }
    PyObject *nothing = PyTuple_New(0);
    if (nothing == NULL)
        return NULL;
    for (at = 0; at < size; at++) {
        PyObject *key = PyList_GET_ITEM(keys, at), *value = PyList_GET_ITEM(values, at);
        Py_ssize_t bytes = (PyBytes_Check(key) ? PyBytes_GET_SIZE(key) : 0) + (PyBytes_Check(value) ? PyBytes_GET_SIZE(value) : 0);
        if (bytes > bytes_max)
            break;
        Py_ssize_t row = PyLong_AsSsize_t(PyList_GET_ITEM(rows, at));
        if (row == -1 && PyErr_Occurred())
            goto failed;
        Send *send = (Send *)SendType.tp_alloc(&SendType, 0);
        if (send == NULL)
            goto failed;
        send->row = row;
        send->topic = Py_NewRef(topic);
        send->partition = Py_NewRef(Py_None);
        send->timestamp = Py_NewRef(PyList_GET_ITEM(times, at));
        send->key = Py_NewRef(key);
        send->value = Py_NewRef(value);
        send->headers = Py_NewRef(nothing);
        send->watermark = Py_NewRef(watermark);
        int done = PyList_Append(sends, (PyObject *)send);
        Py_DECREF(send);
        if (done < 0)
            goto failed;
    }
    Py_DECREF(nothing);
    return PyLong_FromSsize_t(at);
failed:
    Py_DECREF(nothing);
    return NULL;
}

/* As core/partitioner.py. */
static uint32_t
murmur2(const unsigned char *data, Py_ssize_t length)
{
    const uint32_t m = 0x5bd1e995;
    uint32_t h = 0x9747b28cu ^ (uint32_t)length;
    for (; length >= 4; data += 4, length -= 4) {
        uint32_t k = (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
        k *= m;
        k ^= k >> 24;
        h = h * m ^ k * m;
    }
    if (length > 0) {
        for (Py_ssize_t at = length - 1; at >= 0; at--)
            h ^= (uint32_t)data[at] << (8 * at);
        h *= m;
    }
    h ^= h >> 13;
    h *= m;
    return h ^ h >> 15;
}

/* Append a number of up to 66 bits, as core/header.py has it: `high` are those above 64. */
static unsigned char *
varint(unsigned char *out, uint64_t low, unsigned high)
{
    while (high || low > 0x7f) {
        *out++ = (unsigned char)((low & 0x7f) | 0x80);
        low = low >> 7 | (uint64_t)high << 57;
        high >>= 7;
    }
    *out++ = (unsigned char)low;
    return out;
}

/* Append how far a time is ahead of another; a negative number is that much below 2^66. */
static unsigned char *
ahead(unsigned char *out, int64_t time, int64_t stamp)
{
    uint64_t distance = (uint64_t)time - (uint64_t)stamp;
    if (time >= stamp)
        return varint(out, distance, 0);
    return varint(out, distance, 3); /* 2^66 - n is 3 * 2^64 + (2^64 - n) */
}

/* As `behind_of` of core/header.py, but for the sum's last two numbers, which need a bit more. */
static unsigned char *
behind(unsigned char *out, int64_t watermark, int64_t time)
{
    if (watermark == INT64_MIN)
        return varint(out, 0, 0);
    if (watermark == INT64_MAX)
        return varint(out, 1, 0);
    uint64_t distance = time > watermark ? (uint64_t)time - (uint64_t)watermark : 0;
    return varint(out, distance + 2, distance > UINT64_MAX - 2);
}

/* One call's arguments; all borrowed. */
typedef struct {
    PyObject *topic;
    long long agent;
    Py_ssize_t count, otherwise;
    const char *tail;
    Py_ssize_t tail_size;
    long long own;
    int is_internal;
    PyObject *columns, *make;
    /* lists by row, or numbers that hold for all */
    PyObject *topics, *partitions;
    PyObject *offsets, *timestamps, *times, *watermarks; /* lists by row; the last is empty where none are kept */
} Lane;

/* Read a list's number; *ok becomes 0 where it has none there. */
static int64_t
number_at(PyObject *list, Py_ssize_t at, int *ok)
{
    if (!PyList_CheckExact(list)) {
        int64_t found = PyLong_AsLongLong(list);
        *ok &= !(found == -1 && PyErr_Occurred());
        return found;
    }
    if (at < 0 || at >= PyList_GET_SIZE(list)) {
        PyErr_Format(PyExc_IndexError, "row %zd of %zd", at, PyList_GET_SIZE(list));
        *ok = 0;
        return 0;
    }
    int64_t found = PyLong_AsLongLong(PyList_GET_ITEM(list, at));
    *ok &= !(found == -1 && PyErr_Occurred());
    return found;
}

/* Give the headers of a record: its own, and where it came from. */
static PyObject *
headers_with(PyObject *own, const unsigned char *data, Py_ssize_t size)
{
    PyObject *value = PyBytes_FromStringAndSize((const char *)data, size);
    PyObject *origin = value == NULL ? NULL : PyTuple_Pack(2, name_origin, value);
    Py_XDECREF(value);
    if (origin == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_CheckExact(own) ? PyTuple_GET_SIZE(own) : -1;
    PyObject *headers = NULL;
    if (count == 0) {
        headers = PyTuple_New(1);
    }
    else {
        PyObject *list = PySequence_List(own);
        if (list != NULL) {
            count = PyList_GET_SIZE(list);
            headers = PyTuple_New(count + 1);
            for (Py_ssize_t at = 0; headers != NULL && at < count; at++)
                PyTuple_SET_ITEM(headers, at, Py_NewRef(PyList_GET_ITEM(list, at)));
            Py_DECREF(list);
        }
    }
    if (headers == NULL)
        Py_DECREF(origin);
    else
        PyTuple_SET_ITEM(headers, count, origin);
    return headers;
}

/* Give the columns of a partition: five lists, of which the last holds the next sequence. Borrowed from the dict. */
static PyObject *
columns_of(Lane *lane, PyObject *target)
{
    PyObject *columns = PyDict_GetItemWithError(lane->columns, target);
    if (columns == NULL && !PyErr_Occurred()) {
        columns = PyObject_CallOneArg(lane->make, target);
        if (columns == NULL)
            return NULL;
        int done = PyDict_SetItem(lane->columns, target, columns);
        Py_DECREF(columns);
        if (done < 0)
            return NULL;
    }
    if (columns == NULL)
        return NULL;
    int is_right = PyTuple_Check(columns) && PyTuple_GET_SIZE(columns) == 5;
    for (Py_ssize_t at = 0; is_right && at < 5; at++)
        is_right = PyList_CheckExact(PyTuple_GET_ITEM(columns, at));
    if (!is_right || PyList_GET_SIZE(PyTuple_GET_ITEM(columns, 4)) != 1) {
        PyErr_SetString(PyExc_TypeError, "columns are five lists, the last of one number");
        return NULL;
    }
    return columns;
}

/* Give the partition that a send goes to, as a new reference. */
static PyObject *
target_of(Lane *lane, Send *send)
{
    if (send->partition != Py_None)
        return Py_NewRef(send->partition);
    if (send->key == Py_None)
        return PyLong_FromSsize_t(lane->otherwise);
    if (!PyBytes_Check(send->key)) {
        PyErr_SetString(PyExc_TypeError, "a key is bytes or None");
        return NULL;
    }
    uint32_t hash = murmur2((const unsigned char *)PyBytes_AS_STRING(send->key), PyBytes_GET_SIZE(send->key));
    return PyLong_FromSsize_t((Py_ssize_t)(hash & 0x7fffffff) % lane->count);
}

static int
lay(Lane *lane, Send *send, int64_t emit)
{
    unsigned char data[VARINTS_MAX + 32], *out = data;
    int ok = 1;
    Py_ssize_t row = send->row;
    int64_t topic = number_at(lane->topics, row, &ok), source = number_at(lane->partitions, row, &ok);
    int64_t offset = number_at(lane->offsets, row, &ok), stamp = 0;
    PyObject *target = ok ? target_of(lane, send) : NULL, *columns = target == NULL ? NULL : columns_of(lane, target);
    Py_XDECREF(target);
    if (columns == NULL)
        return -1;
    PyObject *timestamp = send->timestamp;
    if (timestamp == Py_None) {
        if (row < 0 || row >= PyList_GET_SIZE(lane->timestamps)) {
            PyErr_Format(PyExc_IndexError, "row %zd has no timestamp", row);
            return -1;
        }
        timestamp = PyList_GET_ITEM(lane->timestamps, row);
    }
    out = varint(out, (uint64_t)lane->agent, 0);
    out = varint(out, (uint64_t)topic, 0);
    out = varint(out, (uint64_t)source, 0);
    out = varint(out, (uint64_t)offset, 0);
    out = varint(out, (uint64_t)emit, 0);
    if (lane->is_internal) {
        PyObject *sequences = PyTuple_GET_ITEM(columns, 4);
        int64_t sequence = number_at(sequences, 0, &ok), time = number_at(lane->times, row, &ok), own = 0;
        stamp = number_at(timestamp, 0, &ok);
        int is_kept = PyList_GET_SIZE(lane->watermarks) > 0;
        if (is_kept)
            own = send->watermark == Py_None ? number_at(lane->watermarks, row, &ok) : number_at(send->watermark, 0, &ok);
        PyObject *next = ok ? PyLong_FromLongLong(sequence + 1) : NULL;
        if (next == NULL || PyList_SetItem(sequences, 0, next) < 0)
            return -1;
        out = varint(out, (uint64_t)sequence, 0);
        out = ahead(out, time, stamp);
        if (is_kept)
            out = behind(out, own, time);
        else if (source != lane->own)
            out = varint(out, 0, 0);
        if (source != lane->own)
            out = varint(out, (uint64_t)lane->own, 0);
    }
    else {
        memcpy(out, lane->tail, (size_t)lane->tail_size);
        out += lane->tail_size;
    }
    PyObject *headers = headers_with(send->headers, data, out - data);
    if (headers == NULL)
        return -1;
    int done = PyList_Append(PyTuple_GET_ITEM(columns, 0), timestamp);
    if (done == 0)
        done = PyList_Append(PyTuple_GET_ITEM(columns, 1), send->key);
    if (done == 0)
        done = PyList_Append(PyTuple_GET_ITEM(columns, 2), send->value);
    if (done == 0)
        done = PyList_Append(PyTuple_GET_ITEM(columns, 3), headers);
    Py_DECREF(headers);
    return done;
}

PyObject *
lay_out(PyObject *Py_UNUSED(module), PyObject *args)
{
    Lane lane;
    PyObject *sends, *counted;
    Py_ssize_t at;
    if (!PyArg_ParseTuple(args, "O!n(OLnny#LpO!O)(OOO!O!O!O!)O!:lay_out", &PyList_Type, &sends, &at, &lane.topic,
                          &lane.agent, &lane.count, &lane.otherwise, &lane.tail, &lane.tail_size, &lane.own,
                          &lane.is_internal, &PyDict_Type, &lane.columns, &lane.make, &lane.topics, &lane.partitions,
                          &PyList_Type, &lane.offsets, &PyList_Type, &lane.timestamps, &PyList_Type, &lane.times,
                          &PyList_Type, &lane.watermarks, &PyList_Type, &counted))
        return NULL;
    if (at < 0 || lane.count < 1 || lane.tail_size > 16 || PyList_GET_SIZE(counted) != 2) {
        PyErr_SetString(PyExc_ValueError, "at is from 0, count from 1, the app's number of 16 bytes at most, counted of two");
        return NULL;
    }
    int ok = 1;
    int64_t last = number_at(counted, 0, &ok), emit = number_at(counted, 1, &ok);
    if (!ok)
        return NULL;
    for (; at < PyList_GET_SIZE(sends); at++) {
        Send *send = (Send *)PyList_GET_ITEM(sends, at);
        if (Py_TYPE(send) != &SendType) {
            PyErr_SetString(PyExc_TypeError, "sends are of the type Send");
            return NULL;
        }
        if (send->topic != lane.topic) {
            int same = PyObject_RichCompareBool(send->topic, lane.topic, Py_EQ);
            if (same < 0)
                return NULL;
            if (!same)
                break;
        }
        emit = send->row == last ? emit + 1 : 0;
        last = send->row;
        Py_INCREF(send);
        int done = lay(&lane, send, emit);
        Py_DECREF(send);
        if (done < 0)
            return NULL;
    }
    PyObject *row = PyLong_FromLongLong(last), *number = PyLong_FromLongLong(emit);
    if (row == NULL || number == NULL || PyList_SetItem(counted, 0, row) < 0) {
        Py_XDECREF(number);
        return NULL;
    }
    if (PyList_SetItem(counted, 1, number) < 0)
        return NULL;
    return PyLong_FromSsize_t(at);
}

int
sends_begin(PyObject *module)
{
    name_origin = PyUnicode_InternFromString("hw");
    if (name_origin == NULL || PyType_Ready(&SendType) < 0)
        return -1;
    return PyModule_AddObjectRef(module, "Send", (PyObject *)&SendType);
}
