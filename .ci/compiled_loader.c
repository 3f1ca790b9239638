/* Starts one module of the library that mypyc makes of all of them.

   mypyc gives the library a capsule for each module, and would have one more library a module only
   to call it: 177 files of 16 kB, any of which may be missing while the others load. */

#include <Python.h>

static PyObject *
load(PyObject *self, PyObject *capsule)
{
    const char *name = PyCapsule_GetName(capsule);
    if (name == NULL) {
        return NULL;
    }
    PyObject *(*begin)(void) = (PyObject *(*)(void))PyCapsule_GetPointer(capsule, name);
    return begin == NULL ? NULL : begin();
}

static PyMethodDef methods[] = {
    {"load", load, METH_O, "Return the module whose capsule this is."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "p2pnode_loader", NULL, -1, methods,
};

PyMODINIT_FUNC
PyInit_p2pnode_loader(void)
{
    return PyModule_Create(&definition);
}
