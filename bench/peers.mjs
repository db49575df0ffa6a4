/** The peers that weightloom is compared with: how each is built and called. Their sources are not part of this repository. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const OPENBLAS_HEADERS = '/usr/include/x86_64-linux-gnu/openblas-pthread';
const NATIVE = ['-O3', '-march=native', '-w', '-fopenmp', `-I${OPENBLAS_HEADERS}`];

/** Programs of the C peers by the name of the binary: compiler, source, arguments. */
const PROGRAMS = {
  cal: ['gcc', 'cal.c', '-O2', '-fopenmp'],
  openblas: ['gcc', 'blas_peer.c', ...NATIVE, '-DOPENBLAS', '-lopenblas', '-lm'],
  blis: ['gcc', 'blas_peer.c', ...NATIVE, '-lblis', '-lm'],
  dnnl: ['g++', 'dnnl_peer.cpp', ...NATIVE, '-ldnnl'],
  xsmm: ['gcc', 'xsmm_peer.c', ...NATIVE, '-lxsmm', '-lopenblas', '-lm', '-ldl', '-lpthread'],
};

/** Compiles what is missing in `build` from the sources in `folder`; one line on stderr for what cannot be. */
export function buildPrograms(folder, build) {
  mkdirSync(build, { recursive: true });
  for (const [name, [compiler, source, ...args]] of Object.entries(PROGRAMS)) {
    const output = join(build, name);
    if (existsSync(output) || !existsSync(join(folder, source))) continue;
    const { status, stderr, error } = spawnSync(compiler, [join(folder, source), '-o', output, ...args], {
      encoding: 'utf8',
    });
    if (status === 0) continue;
    const why = error?.message ?? stderr.split('\n').find(line => /error/i.test(line));
    console.error(`${name} cannot be built: ${why ?? `${compiler} ended with ${status}`}`);
  }
}

/** The ids of a suite's cases, as every peer names them. */
export const idsOf = (workloads, w) =>
  w === 'C'
    ? workloads.C.T.flatMap(T => workloads.C.nio.map(nio => `C${T}x${nio.join('x')}`))
    : workloads[w].cases.map(({ id }) => id);

/** The workloads whose ids `wanted` matches. Suite C is a product of lists: what is kept may be more. */
export function selectCases(workloads, wanted) {
  const selected = { ...workloads };
  for (const w of 'ABDEFGH')
    selected[w] = { ...workloads[w], cases: workloads[w].cases.filter(({ id }) => wanted.test(id)) };
  const { T, nio } = workloads.C;
  const keeps = (t, sizes) => wanted.test(`C${t}x${sizes.join('x')}`);
  selected.C = {
    ...workloads.C,
    T: T.filter(t => nio.some(sizes => keeps(t, sizes))),
    nio: nio.filter(sizes => T.some(t => keeps(t, sizes))),
  };
  return selected;
}

/** Cases as the C peers read them. */
export function flatten(workloads) {
  const { A, B, C, D } = workloads;
  return [
    ...A.cases.map(({ id, N }) => `A ${id} ${N}`),
    ...B.cases.map(({ id, T, k, D: columns }) => `B ${id} ${T} ${k} ${columns}`),
    ...C.T.flatMap(T => C.nio.map(([n, i, o]) => `C C${T}x${n}x${i}x${o} ${T} ${n} ${i} ${o}`)),
    ...D.cases.map(({ id, T, k, n, i, o }) => `D ${id} ${T} ${k} ${n} ${i} ${o}`),
    '',
  ].join('\n');
}

/** Copies the peers' scripts into `scratch`, where they find these workloads instead of their own. */
export function stage(folder, scratch, workloads) {
  for (const file of readdirSync(folder))
    if (/\.(py|mjs)$/.test(file)) copyFileSync(join(folder, file), join(scratch, file));
  writeFileSync(join(scratch, 'workloads.json'), JSON.stringify(workloads));
}

/** glibc keeps freed memory: without these a large result is mapped, and its pages faulted in, at every call. */
const KEEP_MEMORY = {
  MALLOC_MMAP_MAX_: '0',
  MALLOC_TRIM_THRESHOLD_: '17179869184',
  MALLOC_TOP_PAD_: '268435456',
};
/** PyTorch 1.13 keeps its own kernels to AVX2 unless told. */
const AVX512 = { ATEN_CPU_CAPABILITY: 'avx512' };

/**
 * Every peer as `{ name, suites, command, env, input }`. `scratch` is what `stage` filled, `build` what `buildPrograms`
 * did, `workloads` what is to be timed.
 */
export function peersOf({ backend, threads, suite, scratch, build, workloads }) {
  const python = process.env.PYTHON ?? '/usr/bin/python3';
  const program = (name, file, suites, env = {}) => ({
    name,
    suites,
    command: [join(build, file), name, threads, suite],
    env,
    input: flatten(workloads),
  });
  const torch = (name, env = {}) => ({
    name,
    suites: 'ABCDEFGH',
    command: [python, join(scratch, 'torch_cpu.py'), threads, suite],
    env: { PEER_NAME: name, ...env },
  });
  const script = (name, suites, file, ...args) => ({
    name,
    suites,
    command: [process.execPath, join(scratch, file), ...args],
    env: {},
  });
  if (backend === 'webgpu') {
    const onGpu = (precision, suites) => ({
      name: `torch-${precision}`,
      suites,
      command: [python, join(scratch, 'torch_gpu.py'), precision, suite],
      env: {},
    });
    return [
      onGpu('f32', 'ABCDEFGH'),
      onGpu('tf32', 'ABCDF'),
      onGpu('f16', 'A'),
      ...['jax-js', 'tfjs'].map(name =>
        script(`${name}-webgpu`, 'ABCDEFGH', `${name.replace('-', '')}.mjs`, 'webgpu', threads, suite),
      ),
    ];
  }
  return [
    program('openblas', 'openblas', 'ABCD'),
    program('openblas-skx', 'openblas', 'ABCD', { OPENBLAS_CORETYPE: 'SKYLAKEX' }),
    program('openblas-slab', 'openblas', 'B', { SLAB: '1' }),
    // BLIS 0.9 knows no Zen 4 or 5 and would fall to its generic kernel; 0 is skx.
    program('blis-skx', 'blis', 'ABCD', { BLIS_ARCH_TYPE: '0' }),
    program('onednn', 'dnnl', 'ABC'),
    // It links a BLAS of its own, whose threads would fight with OpenMP's.
    program('libxsmm', 'xsmm', 'ACD', { OPENBLAS_NUM_THREADS: '1' }),
    { ...torch('numpy'), suites: 'ABCD', command: [python, join(scratch, 'numpy_blas.py'), threads, suite] },
    torch('torch'),
    torch('torch-avx512', AVX512),
    torch('torch-malloc', KEEP_MEMORY),
    torch('torch-malloc-avx512', { ...KEEP_MEMORY, ...AVX512 }),
    script('jax-js-wasm', 'ABCDEFGH', 'jaxjs.mjs', 'wasm', threads, suite),
    script('tfjs-wasm', 'ABCDEGH', 'tfjs.mjs', 'wasm', threads, suite),
    script('tfjs-cpu', 'EGH', 'tfjs.mjs', 'cpu', threads, suite),
    script('onnxruntime', 'ABC', 'ort.mjs', threads, suite),
  ];
}

// biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholders
const FORMAT = '${Package} ${Version}\\n';

const said = (command, ...args) => {
  const { status, stdout } = spawnSync(command, args, { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : '';
};

/** Versions of the peers that are installed, by name. */
export function versions() {
  const python = process.env.PYTHON ?? '/usr/bin/python3';
  const found = {};
  const packages = said('dpkg-query', '-W', '-f', FORMAT);
  const wanted = {
    openblas: /^libopenblas0-pthread (\S+)/m,
    blis: /^libblis4-openmp (\S+)/m,
    onednn: /^libdnnl\d+ (\S+)/m,
    libxsmm: /^libxsmm-dev (\S+)/m,
  };
  for (const [name, pattern] of Object.entries(wanted)) {
    const match = pattern.exec(packages);
    if (match) found[name] = match[1];
  }
  for (const module of ['numpy', 'torch']) {
    const version = said(python, '-c', `import ${module}; print(${module}.__version__)`);
    if (version) found[module] = version;
  }
  for (const [variable, name] of [
    ['PEERS_NODE', '@jax-js/jax'],
    ['PEERS_NODE', '@tensorflow/tfjs'],
    ['PEERS_ORT', 'onnxruntime-node'],
  ]) {
    const manifest = join(process.env[variable] ?? '', 'node_modules', name, 'package.json');
    if (existsSync(manifest)) found[name] = JSON.parse(readFileSync(manifest, 'utf8')).version;
  }
  return found;
}
