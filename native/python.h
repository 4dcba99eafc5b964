// The part of Python's stable interface (limited API 3.11) that the module needs, declared here: many machines have a
// compiler, or get one from the package registry, but no Python.h. tests/project/test_native.py compares the two where both
// are.
#pragma once
#include <stddef.h>
#include <stdint.h>

extern "C" {
struct PyObject;
typedef ptrdiff_t Py_ssize_t;
typedef PyObject* (*Function)(PyObject* self, PyObject* const* arguments, Py_ssize_t count);

struct PyMethodDef {
    const char* ml_name;
    Function ml_meth;
    int ml_flags;
    const char* ml_doc;
};
struct PyModuleDef_Slot {
    int slot;
    void* value;
};
struct PyModuleDef_Base {
    struct {
        Py_ssize_t ob_refcnt;
        void* ob_type;
    } ob_base;
    PyObject* (*m_init)();
    Py_ssize_t m_index;
    PyObject* m_copy;
};
struct PyModuleDef {
    PyModuleDef_Base m_base;
    const char *m_name, *m_doc;
    Py_ssize_t m_size;
    PyMethodDef* m_methods;
    PyModuleDef_Slot* m_slots;
    void *m_traverse, *m_clear, *m_free;
};
constexpr int METH_FASTCALL = 0x0080;

PyObject* PyModuleDef_Init(PyModuleDef* definition);
long long PyLong_AsLongLong(PyObject* number);
unsigned long long PyLong_AsUnsignedLongLongMask(PyObject* number);
double PyFloat_AsDouble(PyObject* number);
int PyBytes_AsStringAndSize(PyObject* bytes, char** address, Py_ssize_t* size);
PyObject* PyLong_FromLongLong(long long number);
PyObject* PyUnicode_FromString(const char* text);
PyObject* PyErr_Occurred(void);
PyObject* PyErr_Format(PyObject* type, const char* format, ...);
extern PyObject _Py_NoneStruct, *PyExc_TypeError, *PyExc_RuntimeError;
void Py_IncRef(PyObject* object);
struct PyThreadState;
PyThreadState* PyEval_SaveThread(void);
void PyEval_RestoreThread(PyThreadState* state);
}
