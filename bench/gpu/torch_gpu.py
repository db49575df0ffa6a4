"""PyTorch on a GPU over the workloads beside this file: torch_gpu.py PRECISION SUITES

PRECISION is f32 (TF32 off), tf32, or f16 (suite A alone). One JSON line per case on stdout; TORCH_DEVICE names another
device than cuda. A time is the median of samples of at least 5 ms, each ended by waiting for the device.
"""
import json
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F

precision, suites = sys.argv[1:3]
device = os.environ.get('TORCH_DEVICE', 'cuda')
if device == 'cuda' and not torch.cuda.is_available():
    sys.exit('Error: PyTorch finds no CUDA device')
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'workloads.json')) as file:
    W = json.load(file)
torch.manual_seed(0)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == 'tf32'
torch.backends.cudnn.benchmark = True
grad = torch.autograd.grad
peer = 'torch-' + device + ('' if precision == 'f32' else '-' + precision)


def rand(*shape, scale=1.0):
    return (torch.rand(*shape, device=device) - 0.5) * scale


def wait():
    if device == 'cuda':
        torch.cuda.synchronize()


def timed(calls, run):
    start = time.perf_counter()
    for _ in range(calls):
        run()
    wait()
    return time.perf_counter() - start


def bench(w, id, step, run, flops=0, name=peer):
    rule = W['timing']
    timed(1, run)
    each = timed(3, run) / 3
    inner = 1 if each >= 0.005 else int(0.005 / each) + 1
    count = min(rule['samples_max'], max(rule['samples_min'], int(rule['target_seconds'] / (inner * each))))
    samples = sorted(timed(inner, run) / inner * 1e3 for _ in range(count))
    line = {'peer': name, 'threads': 1, 'w': w, 'id': id, 'pass': step}
    line.update(ms=statistics.median(samples), min_ms=samples[0], n=count)
    if flops:
        line['gflops'] = flops / line['ms'] / 1e6
    if precision != 'f32':
        line['precision'] = precision
    print(json.dumps(line), flush=True)


def with_grad(*tensors):
    return [t.requires_grad_() for t in tensors]


def suite_a():
    for c in W['A']['cases']:
        n = c['N']
        a, b = rand(n, n), rand(n, n)
        if precision == 'f16':
            a, b = a.half(), b.half()
        bench('A', c['id'], 'fwd', lambda: torch.mm(a, b), 2 * n**3)


def suite_b():
    for c in W['B']['cases']:
        T, k, D = c['T'], c['k'], c['D']
        H, P, p, G = rand(T, k), rand(k, D), rand(D), rand(T, D)
        flops = 2 * T * k * D
        bench('B', c['id'], 'fwd', lambda: torch.addmm(p, H, P), flops)
        bench('B', c['id'], 'bwd', lambda: (G @ P.t(), H.t() @ G), 2 * flops)
        inputs = with_grad(H, P, p)
        bench('B', c['id'], 'fwdbwd', lambda: grad(torch.addmm(p, H, P), inputs, G), 3 * flops)


def suite_c():
    for T in W['C']['T']:
        for n, i, o in W['C']['nio']:
            id = f'C{T}x{n}x{i}x{o}'
            X, w, b, G = rand(T, n, i), rand(T, i, o), rand(T, 1, o), rand(T, n, o)
            flops = 2 * T * n * i * o
            Xt, wt = X.transpose(1, 2), w.transpose(1, 2)
            bench('C', id, 'fwd', lambda: torch.baddbmm(b, X, w), flops)
            bench('C', id, 'bwd', lambda: (torch.bmm(G, wt), torch.bmm(Xt, G), G.sum(1)), 2 * flops)
            inputs = with_grad(X, w, b)
            bench('C', id, 'fwdbwd', lambda: grad(torch.baddbmm(b, X, w), inputs, G), 3 * flops)


def suite_d():
    for c in W['D']['cases']:
        T, k, n, i, o = c['T'], c['k'], c['n'], c['i'], c['o']
        H, P, p, X, b, G = rand(T, k), rand(k, i * o), rand(i * o), rand(T, n, i), rand(T, 1, o), rand(T, n, o)
        flops = 2 * T * k * i * o + 2 * T * n * i * o
        forward = lambda: torch.baddbmm(b, X, torch.addmm(p, H, P).view(T, i, o))
        bench('D', c['id'], 'fwd', forward, flops)
        inputs = with_grad(H, P, p, X, b)
        bench('D', c['id'], 'fwdbwd', lambda: grad(forward(), inputs, G), 3 * flops)


def suite_e():
    for c in W['E']['cases']:
        T, width, hidden = c['T'], c['enc'][1], c['target'][1]

        def make(**options):
            linear = lambda i, o: torch.nn.Linear(i, o, device=device)
            encoder = torch.nn.Sequential(
                linear(c['enc'][0], width), torch.nn.ReLU(), linear(width, c['enc'][2]), torch.nn.ReLU()
            )
            head = linear(c['enc'][2], c['gen'])
            parameters = [*encoder.parameters(), *head.parameters()]
            optimiser = torch.optim.Adam(parameters, lr=1e-3, **options)
            support, x = rand(T, c['support'], 2, scale=4), rand(T, c['query'], 1, scale=10)
            y = rand(T, c['query'], 1, scale=4)

            def step():
                optimiser.zero_grad(set_to_none=True)
                code = head(encoder(support).mean(1))
                w1, b1, w2, b2, w3, b3 = torch.split(code, [hidden, hidden, hidden * hidden, hidden, hidden, 1], 1)
                h = torch.relu(torch.baddbmm(b1.view(T, 1, -1), x, w1.view(T, 1, hidden)))
                h = torch.relu(torch.baddbmm(b2.view(T, 1, -1), h, w2.reshape(T, hidden, hidden)))
                loss = (torch.baddbmm(b3.view(T, 1, 1), h, w3.reshape(T, hidden, 1)) - y).square().mean()
                loss.backward()
                optimiser.step()
                return loss

            return step

        bench('E', c['id'], 'step', make(foreach=True))
        if device != 'cuda':
            continue
        step = make(foreach=True, capturable=True)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        bench('E', c['id'], 'step', graph.replay, name=peer + '-graph')


def suite_f():
    for c in W['F']['cases']:
        batch = c['batch']
        layers, channels = [], 1
        for _ in range(4):
            conv = torch.nn.Conv2d(channels, 64, 3, padding=1)
            layers += [conv, torch.nn.BatchNorm2d(64), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
            channels = 64
        net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64, 5))
        net = net.to(device, memory_format=torch.channels_last)
        x = rand(batch, 1, 28, 28).contiguous(memory_format=torch.channels_last)
        y = torch.arange(batch, device=device) % 5
        parameters = list(net.parameters())
        flops = 3 * batch * 2 * 9 * 64 * (28 * 28 + 14 * 14 * 64 + 7 * 7 * 64 + 3 * 3 * 64)
        bench('F', c['id'], 'fwdbwd', lambda: grad(F.cross_entropy(net(x), y), parameters), flops)


def suite_g():
    for c in W['G']['cases']:
        x = rand(*c.get('shape', [c.get('n')]))
        scale, shift = rand(x.shape[-1]), rand(x.shape[-1])
        run = {
            'affrelu': lambda: torch.relu(x * 1.5 - 0.25),
            'softmax': lambda: torch.softmax(x, -1),
            'sum0': lambda: x.sum(0),
            'sum1': lambda: x.sum(1),
            'layernorm': lambda: F.layer_norm(x, x.shape[-1:], scale, shift),
        }[c['id'].split('-')[1]]
        bench('G', c['id'], 'fwd', run)


def suite_h():
    for c in W['H']['cases']:
        one, zero = torch.ones(1, device=device), torch.zeros(1, device=device)
        leaf = torch.zeros(1, device=device, requires_grad=True)

        def chain(x):
            for _ in range(c['chain']):
                x = x + one
            return x

        bench('H', c['id'], 'fwd', lambda: chain(zero))
        bench('H', c['id'], 'fwdgrad', lambda: chain(leaf))
        bench('H', c['id'], 'fwdbwd', lambda: grad(chain(leaf), leaf))


for w in suites if precision != 'f16' else 'A':
    globals()['suite_' + w.lower()]()
