// wellposed._native: a function of Python's for each kernel, of addresses and numbers. Who calls them, random/cpu.py
// and its like, answers for the memory behind an address. No object is kept, and nothing is allocated.
#if defined(__linux__)
#include <sys/mman.h>
#endif
#include "python.h"
#include "threads.h"

static i64 integer(PyObject* o) { return PyLong_AsLongLong(o); }
static u64 natural(PyObject* o) { return PyLong_AsUnsignedLongLongMask(o); }
static void* address(PyObject* o) { return (void*)(intptr_t)integer(o); }
static PyObject* none() {
    Py_IncRef(&_Py_NoneStruct);
    return &_Py_NoneStruct;
}

static bool wrong_count(Py_ssize_t given, Py_ssize_t expected) {
    if (given != expected) PyErr_Format(PyExc_TypeError, "expected %zd arguments, not %zd", expected, given);
    return given != expected;
}
template <class T> static const T* numbers(PyObject* bytes, i64* count) {
    char* at = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(bytes, &at, &size) != 0) return nullptr;
    *count = size / sizeof(T);
    return (const T*)at;
}
static Stream stream_of(PyObject* key, PyObject* call) {
    u64 bits = natural(key);
    return {{(u32)bits, (u32)(bits >> 32)}, natural(call)};
}
static Layout layout_of(PyObject* bytes) {  // the start, the sizes, the strides
    i64 count = 1;
    const i64* n = numbers<i64>(bytes, &count);
    i64 rank = count / 2;
    return n ? Layout{n[0], rank, n + 1, n + 1 + rank} : Layout{};
}

// The first touch of fresh memory costs more than the loops: the system clears it page by page, and pages are small
// unless a program asks for large ones.
static void advise(void* out, i64 size) {
#if defined(__linux__)
    const uintptr_t page = 4096, first = ((uintptr_t)out + page - 1) / page * page;
    if (size >= 1 << 22) madvise((void*)first, (uintptr_t)out + size - first, MADV_HUGEPAGE);
#else
    (void)out, (void)size;
#endif
}
static i64 size_of(Dtype dtype) {
    const i64 sizes[] = {4, 8, 2, 2, 1, 4};
    return sizes[dtype];
}

// Runs f(first, last) over `count` things, on threads and without the interpreter's lock where it takes long.
template <class F> static bool work(i64 count, i64 elements, const F& f) {
    if (count * elements < 1 << 13) {
        f(0, count);
        return true;
    }
    PyThreadState* state = PyEval_SaveThread();
    bool done = split(count, elements, f);
    PyEval_RestoreThread(state);
    if (!done) PyErr_Format(PyExc_RuntimeError, "torch could not start its threads, so the result is not complete");
    return done;
}

// use(address of torch_parallel_for, or 0)
static PyObject* use(PyObject*, PyObject* const* a, Py_ssize_t count) {
    if (wrong_count(count, 1)) return nullptr;
    parallel_for = (ParallelFor)address(a[0]);
    return PyErr_Occurred() ? nullptr : none();
}

static PyObject* instruction_set(PyObject*, PyObject* const*, Py_ssize_t) {
    return PyUnicode_FromString(kernels().name);
}
static PyObject* source_digest(PyObject*, PyObject* const*, Py_ssize_t) { return PyUnicode_FromString(SOURCE_DIGEST); }

// fill(out, dtype, count, layout, key, call, kind, constants)
static PyObject* fill(PyObject*, PyObject* const* a, Py_ssize_t count) {
    if (wrong_count(count, 8)) return nullptr;
    Fill f = {};
    i64 bytes = 0, elements = integer(a[2]);
    f.out = address(a[0]);
    f.dtype = (Dtype)integer(a[1]);
    f.where = layout_of(a[3]);
    f.stream = stream_of(a[4], a[5]);
    f.kind = (Kind)integer(a[6]);
    f.constants = numbers<char>(a[7], &bytes);
    f.constant_count = bytes / (f.dtype == FLOAT64 ? 8 : 4);
    if (PyErr_Occurred()) return nullptr;
    advise(f.out, elements * size_of(f.dtype));
    const Kernels& k = kernels();
    bool is_long = f.kind == NORMAL || f.kind == STRADDLING || f.kind == ONE_SIDED;
    return work(elements, is_long ? 4 : 1, [&](i64 first, i64 last) { k.fill(f, first, last); }) ? none() : nullptr;
}

// thin(x, out, dtype, count, layout, key, call, threshold, scale, shift, floor)
static PyObject* thin(PyObject*, PyObject* const* a, Py_ssize_t count) {
    if (wrong_count(count, 11)) return nullptr;
    i64 elements = integer(a[3]);
    Thin t = {address(a[0]), address(a[1]), (Dtype)integer(a[2]), layout_of(a[4]), stream_of(a[5], a[6]), natural(a[7]),
              PyFloat_AsDouble(a[8]), PyFloat_AsDouble(a[9]), PyFloat_AsDouble(a[10])};
    if (PyErr_Occurred()) return nullptr;
    advise(t.out, elements * size_of(t.dtype));
    const Kernels& k = kernels();
    return work(elements, 1, [&](i64 first, i64 last) { k.thin(t, first, last); }) ? none() : nullptr;
}

// paint(painted, maps, sides and block, start, key, call, threshold): how many elements are painted
static PyObject* paint(PyObject*, PyObject* const* a, Py_ssize_t count) {
    if (wrong_count(count, 7)) return nullptr;
    Paint p = {};
    i64 sides = 0, maps = integer(a[1]), painted = 0;
    const i64* n = numbers<i64>(a[2], &sides);
    if (n && sides != 6) PyErr_Format(PyExc_TypeError, "expected 3 sides of a map and 3 of a block");
    p.painted = (u8*)address(a[0]);
    p.start = integer(a[3]);
    p.stream = stream_of(a[4], a[5]);
    p.threshold = natural(a[6]);
    if (PyErr_Occurred()) return nullptr;
    for (int i = 0; i < 3; ++i) p.side[i] = n[i], p.block[i] = n[3 + i];
    const Kernels& k = kernels();
    auto part = [&](i64 first, i64 last) { __atomic_fetch_add(&painted, k.paint(p, first, last), __ATOMIC_RELAXED); };
    return work(maps, p.side[0] * p.side[1] * p.side[2], part) ? PyLong_FromLongLong(painted) : nullptr;
}

// clear(x, out, dtype, count, painted, size, shared, scale)
static PyObject* clear(PyObject*, PyObject* const* a, Py_ssize_t count) {
    if (wrong_count(count, 8)) return nullptr;
    i64 elements = integer(a[3]);
    Clear c = {address(a[0]), address(a[1]), (Dtype)integer(a[2]), (const u8*)address(a[4]),
               integer(a[5]), integer(a[6]), PyFloat_AsDouble(a[7])};
    if (PyErr_Occurred()) return nullptr;
    advise(c.out, elements * size_of(c.dtype));
    const Kernels& k = kernels();
    return work(elements, 1, [&](i64 first, i64 last) { k.clear(c, first, last); }) ? none() : nullptr;
}

// move(x, out, words, rows, bytes of a token, prefix, others, kept, back)
static PyObject* move(PyObject*, PyObject* const* a, Py_ssize_t count) {
    if (wrong_count(count, 9)) return nullptr;
    i64 rows = integer(a[3]);
    Move m = {address(a[0]), address(a[1]), (const u32*)address(a[2]), integer(a[4]),
              integer(a[5]), integer(a[6]), integer(a[7]), integer(a[8]) != 0};
    if (PyErr_Occurred()) return nullptr;
    i64 tokens = m.prefix + (m.back ? m.others : m.kept);
    advise(m.out, rows * tokens * m.token_bytes);
    const Kernels& k = kernels();
    i64 worth = (m.prefix + m.others) * (m.token_bytes / 4 + 8);
    return work(rows, worth, [&](i64 first, i64 last) { k.move(m, first, last); }) ? none() : nullptr;
}

// elastic(pass, jobs, pieces, results)
static PyObject* elastic(PyObject*, PyObject* const* a, Py_ssize_t count) {
    if (wrong_count(count, 4)) return nullptr;
    Elastic e = {};
    i64 pieces = integer(a[2]), elements = 0;
    e.pass = (Pass)integer(a[0]);
    e.jobs = numbers<Job>(a[1], &e.job_count);
    e.results = (double*)address(a[3]);
    if (PyErr_Occurred()) return nullptr;
    for (i64 i = 0; i < e.job_count; ++i) elements += e.jobs[i].count;
    const Kernels& k = kernels();
    auto part = [&](i64 first, i64 last) { k.elastic(e, first, last); };
    return work(pieces, pieces ? elements / pieces + 1 : 1, part) ? none() : nullptr;
}

#define FUNCTION(name) {#name, name, METH_FASTCALL, nullptr}
static PyMethodDef methods[] = {
    FUNCTION(use), FUNCTION(instruction_set), FUNCTION(source_digest), FUNCTION(fill), FUNCTION(thin), FUNCTION(paint),
    FUNCTION(clear), FUNCTION(move), FUNCTION(elastic), {nullptr, nullptr, 0, nullptr}};
static PyModuleDef_Slot slots[] = {{0, nullptr}};
static PyModuleDef definition = {
    {{1, nullptr}, nullptr, 0, nullptr}, "_native", nullptr, 0, methods, slots, nullptr, nullptr, nullptr};

extern "C" __attribute__((visibility("default"))) PyObject* PyInit__native(void) {
    return PyModuleDef_Init(&definition);
}
