/** Lines of weightloom and its peers as rows with ratios, and the rows as Markdown. */

/** What is wanted of one thread: a ratio is the best peer's time over ours. */
const CPU_TARGETS = {
  A: { mean: 1, least: 0.97 },
  B: { mean: 1.4, least: 1, rows: { 'B4 fwd': 2.8, 'B4 bwd': 2.8 } },
  C: { mean: 1.45, least: 0.97 },
  D: { least: 1.2 },
  E: { least: 4 },
  F: { least: 1.8 },
  G: { mean: 1.6, least: 1, rows: { 'G-softmax fwd': 2, 'G-layernorm fwd': 1.8 } },
  H: { least: 1 },
};
/** What is wanted of a GPU, where the peers have the vendor's own libraries. */
const GPU_TARGETS = { A: { least: 0.6 }, C: { least: 1 }, E: { least: 1 } };
const WHAT = {
  A: 'square products',
  B: 'batched weight projection `H·P + p`',
  C: 'one layer per task, `X[t]·W[t] + b[t]`',
  D: 'generate a layer per task, then apply it',
  E: 'a whole training step of a sinusoid hypernetwork with Adam',
  F: 'four convolution blocks, forward and backward',
  G: 'memory-bound single ops',
  H: '1000 additions of one element, one after the other',
};
/** Suites whose gradient pass the peers without an autograd time apart: their forward and backward add up. */
const COMPOSED = 'BC';
/** A suite of at most so many rows is shown with the times of every peer. */
const FEW = 8;

const isOurs = ({ peer }) => /^weightloom-/.test(peer);
const isCompiled = ({ peer }) => /-compiled$/.test(peer);
const faster = (a, b) => (b === undefined || a.ms < b.ms ? a : b);
/** A peer to be compared with: what computes with fewer bits is only shown. */
const isRival = line => !isOurs(line) && line.precision === undefined;
/** The fastest of `lines`, or undefined. */
const fastest = lines => lines.reduce((best, line) => faster(line, best), undefined);

/** One row per case and pass, in the order of the lines. `threads` picks the lines. */
export function rowsOf(lines, threads) {
  const timed = lines.filter(line => line.threads === threads && line.ms !== undefined && line.w !== 'L');
  const groups = new Map();
  for (const line of timed) {
    const key = `${line.id} ${line.pass}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(line);
  }
  return [...groups].flatMap(([key, group]) => {
    const ours = group.filter(line => isOurs(line) && line.precision === undefined);
    if (ours.length === 0) return [];
    const eager = fastest(ours.filter(line => !isCompiled(line)));
    const compiled = fastest(ours.filter(isCompiled));
    const { w, id, pass } = ours[0];
    // The peers dispatch eagerly: a chain compiled into one kernel is no answer to them.
    const best = w === 'H' && eager ? eager : fastest(ours);
    const peer = fastest(group.filter(isRival));
    const composed =
      COMPOSED.includes(w) && pass === 'fwdbwd'
        ? composedOf(groups.get(`${id} fwd`) ?? [], groups.get(`${id} bwd`) ?? [])
        : undefined;
    return [
      {
        key,
        w,
        id,
        pass,
        eager: eager?.ms,
        compiled: compiled?.ms,
        ours: best,
        peer,
        ratio: peer && peer.ms / best.ms,
        composed,
        composedRatio: composed && composed.ms / best.ms,
      },
    ];
  });
}

/** The fastest sum of one peer's forward and backward times. */
function composedOf(...passes) {
  const [forwards, backwards] = passes.map(lines => lines.filter(isRival));
  const sums = [...new Set(forwards.map(line => line.peer))].flatMap(peer => {
    const forward = fastest(forwards.filter(line => line.peer === peer));
    const backward = fastest(backwards.filter(line => line.peer === peer));
    return !backward ? [] : [{ peer, ms: forward.ms + backward.ms }];
  });
  return fastest(sums);
}

/** Geometric mean and worst row of `ratio` over `rows`, or undefined where no row has one. */
export function summaryOf(rows, ratio = row => row.ratio) {
  const rated = rows.filter(row => ratio(row) !== undefined);
  if (rated.length === 0) return undefined;
  const mean = Math.exp(rated.reduce((sum, row) => sum + Math.log(ratio(row)), 0) / rated.length);
  const worst = rated.reduce((a, b) => (ratio(b) < ratio(a) ? b : a));
  return { count: rated.length, mean, worst: worst.key, least: ratio(worst) };
}

const targetsOn = backend => (backend === 'webgpu' ? GPU_TARGETS : CPU_TARGETS);
/** Rows under what is wanted of them on a backend. */
export const missed = (rows, backend) => {
  const targets = targetsOn(backend);
  return rows.filter(({ w, key, ratio }) => ratio < (targets[w]?.rows?.[key] ?? targets[w]?.least ?? 0));
};

const ms = x => (x === undefined ? '' : Number(x.toPrecision(4)).toString());
const times = x => (x === undefined ? '' : x.toFixed(2));
const table = (head, rows) =>
  [
    `| ${head.join(' | ')} |`,
    `|${head.map((_, i) => (i === 0 ? '---' : '---:')).join('|')}|`,
    ...rows.map(cells => `| ${cells.join(' | ')} |`),
  ].join('\n');

/** Geometric mean of the speed-up of our times from one thread to more. */
function scalingOf(rows, more) {
  const shared = more.flatMap(row => {
    const one = rows.find(({ key }) => key === row.key);
    return one ? [{ key: row.key, ratio: one.ours.ms / row.ours.ms }] : [];
  });
  return summaryOf(shared);
}

function summaryTable(byThreads, backend) {
  const [[, first], ...others] = byThreads;
  const suites = [...new Set(first.map(({ w }) => w))];
  const head = [
    'suite',
    'rows',
    'geometric mean (wanted)',
    'worst row (wanted)',
    'rows under what is wanted',
  ];
  for (const [threads] of others) head.push(`${threads} threads: mean`, 'worst row', 'speed-up');
  const line = (name, w, choose, ratio) => {
    const rows = first.filter(row => row.w === w && choose(row));
    const summary = summaryOf(rows, ratio);
    if (!summary) return [];
    const { mean, least } = targetsOn(backend)[w] ?? {};
    const wanted = x => (x === undefined || ratio ? '' : ` (${x})`);
    const under = ratio ? '' : missed(rows, backend).map(row => `${row.key} ${times(row.ratio)}`);
    const cells = [
      name,
      summary.count,
      times(summary.mean) + wanted(mean),
      `${summary.worst} ${times(summary.least)}${wanted(least)}`,
      ratio ? '' : under.length > 8 ? `${under.length}` : under.join(', '),
    ];
    for (const [, all] of others) {
      const more = all.filter(row => row.w === w && choose(row));
      const there = summaryOf(more, ratio);
      cells.push(times(there?.mean), there ? `${there.worst} ${times(there.least)}` : '');
      cells.push(times(scalingOf(rows, more)?.mean));
    }
    return [cells];
  };
  const all = suites.flatMap(w => [
    ...line(w, w, () => true),
    ...(COMPOSED.includes(w)
      ? line(
          `${w}, fwdbwd against a peer's fwd + bwd`,
          w,
          row => row.pass === 'fwdbwd',
          row => row.composedRatio,
        )
      : []),
  ]);
  return table(head, all);
}

function suiteTable(w, byThreads) {
  const composed = COMPOSED.includes(w);
  const [[, first], ...others] = byThreads;
  const rows = first.filter(row => row.w === w);
  const clocked = rows.some(({ ours }) => ours.kernel_ms !== undefined);
  const head = ['case', 'pass', 'eager', 'compiled', '% of peak', 'cal', 'best peer', 'its time', 'ratio'];
  if (composed) head.push('fwd + bwd of');
  if (clocked) head.push('kernels alone', '% of peak');
  for (const [threads] of others) {
    head.push(`${threads} threads`, '% of peak', 'cal', 'speed-up', 'best peer', 'its time', 'ratio');
  }
  const cells = rows.map(row => {
    const { id, pass, eager, compiled, ours, peer, ratio } = row;
    const line = [id, pass, ms(eager), ms(compiled), ours.peak ?? '', ours.cal ?? ''];
    line.push(peer?.peer ?? '', ms(peer?.ms), times(ratio));
    if (composed)
      line.push(
        row.composed ? `${row.composed.peer} ${ms(row.composed.ms)}, ratio ${times(row.composedRatio)}` : '',
      );
    if (clocked) line.push(ms(ours.kernel_ms), ours.kernel_peak ?? '');
    for (const [, all] of others) {
      const there = all.find(({ key }) => key === row.key);
      line.push(ms(there?.ours.ms), there?.ours.peak ?? '', there?.ours.cal ?? '');
      line.push(times(there && ours.ms / there.ours.ms));
      line.push(there?.peer?.peer ?? '', ms(there?.peer?.ms), times(there?.ratio));
    }
    return line;
  });
  return `## ${w}: ${WHAT[w]}\n\n${table(head, cells)}`;
}

/** Where a suite has few rows: what each peer took, by the first number of threads. */
function peersTable(lines, rows, threads) {
  if (rows.length > FEW) return '';
  const timed = lines.filter(
    line => line.w === rows[0].w && line.threads === threads && line.ms !== undefined,
  );
  const peers = [...new Set(timed.map(({ peer }) => peer))];
  const cells = rows.map(({ key }) => [
    key,
    ...peers.map(peer =>
      ms(fastest(timed.filter(line => line.peer === peer && `${line.id} ${line.pass}` === key))?.ms),
    ),
  ]);
  return `\n\n${table(['case', ...peers], cells)}`;
}

/** The machine's own rates, as suite L measured them; the fastest run of each. */
function machineTable(lines, threadCounts) {
  const measured = lines.filter(({ w, peer }) => w === 'L' && isOurs({ peer }));
  const ids = [...new Set(measured.map(({ id }) => id))];
  const cell = (id, threads) => {
    const rates = measured.filter(line => line.id === id && line.threads === threads);
    const rate = Math.max(...rates.map(line => line.gflops ?? line.GBs));
    return rates.length === 0 ? '' : `${rate} ${rates[0].gflops === undefined ? 'GB/s' : 'GFLOP/s'}`;
  };
  return table(
    ['rate', ...threadCounts.map(threads => `${threads} thread${threads === 1 ? '' : 's'}`)],
    ids.map(id => [id, ...threadCounts.map(threads => cell(id, threads))]),
  );
}

/** What must be known beside the rows of suite H. */
const ON_THE_HOST =
  'jax-js and tfjs do not compute this on the device: to jax-js an array of one element is a constant, whose sums are ' +
  'constants as well, and tfjs adds what is tiny on the processor. weightloom dispatches each addition, or compiles them.';

/** The whole report. `about` is what compare.mjs found of the machine and of the peers' versions. */
export function render(lines, about) {
  const threadCounts = [...new Set(lines.filter(isOurs).map(({ threads }) => threads))].sort((a, b) => a - b);
  const byThreads = threadCounts.map(threads => [threads, rowsOf(lines, threads)]);
  const suites = [...new Set(byThreads[0][1].map(({ w }) => w))].sort();
  const failed = lines.filter(({ error }) => error !== undefined);
  return [
    `# ${about.title}`,
    `Machine: ${about.machine}\n\nSoftware: ${about.software}\n\nMeasured ${about.date} by \`${about.command}\`.`,
    'Times in ms: the smallest median of all rounds, in which weightloom and its peers ran by turns. ratio = the best ' +
      "peer's time / the better of ours (in H: our eager time), so above 1 weightloom is faster. % of peak: of the speed " +
      'that the rates below allow at most (operations at the rate of multiply-adds; bytes of operands and results, each ' +
      'moved once, at the rates of the nearest memory that holds them). cal: the rate of multiply-adds around the case as a ' +
      'fraction of the one below: under 1, others used the processor. kernels alone: on the clock of a GPU, without what lies between submissions. Passes: fwd; bwd, the gradient products ' +
      'alone, given the gradient of the output; fwdbwd, value and gradients through an autograd, which only PyTorch, ' +
      'jax-js and tfjs have. In B and C the other peers are shown for fwdbwd by the sum of their fwd and bwd, composed ' +
      'by hand; in D their fwdbwd is composed by hand in one run.',
    `## Summary\n\n${summaryTable(byThreads, about.backend)}`,
    `## The machine\n\n${machineTable(lines, threadCounts)}`,
    ...suites.map(w => {
      const rows = byThreads[0][1].filter(row => row.w === w);
      const note = w === 'H' && lines.some(line => line.w === w && /^(jax-js|tfjs)-webgpu$/.test(line.peer));
      const tables = suiteTable(w, byThreads) + peersTable(lines, rows, threadCounts[0]);
      return note ? `${tables}\n\n${ON_THE_HOST}` : tables;
    }),
    ...(failed.length === 0
      ? []
      : [
          `## Could not run\n\n${[...new Set(failed.map(({ peer, w, id, pass, error }) => `- ${peer} ${w ?? ''} ${id ?? ''} ${pass ?? ''}: ${error}`))].join('\n')}`,
        ]),
    '',
  ].join('\n\n');
}
