"""PyTorch's formulations of a generated layer: W = code . basis, y = x . W of every task, forward and with gradients.

usage: generate_torch.py time|memory THREADS T,n,E,i,o ...   (JSON lines on stdout)
time: the least milliseconds of a call. memory: bytes at the peak of a call over those held before the operands were made.
"""
import json, os, re, sys, time
mode, threads = sys.argv[1], int(sys.argv[2])
for name in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ[name] = str(threads)
import torch
from functorch import vmap

torch.set_num_threads(threads)
torch.set_flush_denormal(True)


def formulations(T, n, E, i, o):
    def weave(code, basis):
        return (code @ basis.view(E, i * o)).view(T, i, o)

    return {
        'addmm+baddbmm': lambda code, basis, x: torch.bmm(x, weave(code, basis)),
        'einsum': lambda code, basis, x: torch.einsum('te,eio,tni->tno', code, basis, x),
        'vmap': lambda code, basis, x: vmap(lambda c, x: x @ (c @ basis.view(E, i * o)).view(i, o))(code, x),
        'loop': lambda code, basis, x: torch.stack(
            [rows @ w for rows, w in zip(x.unbind(0), weave(code, basis).unbind(0))]
        ),
    }


def status(name):
    with open('/proc/self/status') as file:
        return 1024 * int(re.search(name + r':\s+(\d+) kB', file.read()).group(1))


def least(call):
    start = time.perf_counter(); call(); call(); each = (time.perf_counter() - start) / 2
    if each > 0.4:
        return each
    calls, best = max(1, int(0.002 / each) + 1), each
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - start) / calls)
    return best


def measure(sizes, name, apply, which):
    T, n, E, i, o = sizes
    held = status('VmRSS')
    if mode == 'memory':
        with open('/proc/self/clear_refs', 'w') as file:
            file.write('5')
    leaves = [torch.full(s, 0.5) for s in ((T, E), (E, i, o), (T, n, i))]
    g = torch.full((T, n, o), 0.5)
    if which == 'fwdbwd':
        for leaf in leaves:
            leaf.requires_grad_()
    call = lambda: apply(*leaves) if which == 'fwd' else torch.autograd.grad(apply(*leaves), leaves, g)
    line = dict(peer='torch-' + name, threads=threads, w='generate', id='T%dn%dE%di%do%d' % sizes)
    line['pass'] = which
    if mode == 'time':
        line['ms'] = float('%.5g' % (1e3 * least(call)))
    else:
        call()
        line['bytes'] = status('VmHWM') - held
    print(json.dumps(line), flush=True)


for shape in sys.argv[3:]:
    sizes = tuple(map(int, shape.split(',')))
    for name, apply in formulations(*sizes).items():
        for which in ('fwd', 'fwdbwd'):
            if mode == 'time':
                measure(sizes, name, apply, which)
            # What one call leaves to the allocator must not serve the next: each in a process of its own.
            elif os.fork() == 0:
                measure(sizes, name, apply, which)
                os._exit(0)
            else:
                os.wait()
