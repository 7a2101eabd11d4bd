/* What the files of the extension `_hot` have of each other. */

#ifndef HEADWATER_HOT_H
#define HEADWATER_HOT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* _sends.c */
PyObject *stage(PyObject *module, PyObject *args);
PyObject *lay_out(PyObject *module, PyObject *args);
int sends_begin(PyObject *module);

/* _windows.c */
PyObject *fold_windows(PyObject *module, PyObject *args);
int windows_begin(void);

#endif
