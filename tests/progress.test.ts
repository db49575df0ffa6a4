import { describe, expect, it } from 'vitest';
import { formatDuration, formatMetric, progress } from '../src/cli/progress.js';

/** A stream that keeps what is written, and a clock that moves only when told to. */
function stand(isTTY: boolean, env: Record<string, string> = {}, columns = 100) {
  let ms = 0;
  const written: string[] = [];
  const stream = { isTTY, columns, write: (text: string) => written.push(text) };
  return { written, wait: (by: number) => (ms += by), options: { stream, now: () => ms, env } };
}

describe('progress', () => {
  it('draws step, speed, remaining time and metric on a terminal', () => {
    const { written, wait, options } = stand(true, { NO_COLOR: '1' });
    const bar = progress({ ...options, total: 200, label: 'train' });
    wait(1000);
    bar.update(50, 0.125);
    expect(written).toEqual([
      `\rtrain ${'━'.repeat(6)}${'─'.repeat(18)}  50/200  50.0 steps/s  ETA 3 s  loss 0.1250\x1b[K`,
    ]);
    wait(10);
    bar.update(51);
    expect(written).toHaveLength(1);
    wait(3000);
    bar.update(200, 0.01);
    bar.done();
    expect(written.at(-2)).toContain('200/200  49.9 steps/s  in 4 s  loss 0.01000');
    expect(written.at(-1)).toBe('\n');
  });

  it('colours the bar unless NO_COLOR is set, and never breaks the line', () => {
    const { written, wait, options } = stand(true, {}, 40);
    const bar = progress({ ...options, total: 10, label: 'train' });
    wait(1000);
    bar.update(5);
    expect(written[0]).toContain('\x1b[36m');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape sequences are what is removed
    const visible = written[0].replace(/\x1b\[\d*[mK]|\r/g, '');
    expect(visible.length).toBeLessThan(40);
  });

  it('writes a plain line every five seconds elsewhere', () => {
    const { written, wait, options } = stand(false);
    const lines = progress({ ...options, total: 100, label: 'train', metric: 'accuracy' });
    for (let step = 1; step <= 60; step++) {
      wait(100);
      lines.update(step, 0.5);
    }
    lines.done();
    expect(written).toEqual([
      'train  50/100  10.0 steps/s  ETA 5 s  accuracy 0.5000\n',
      'train  60/100  10.0 steps/s  ETA 4 s  accuracy 0.5000\n',
    ]);
  });

  it('counts the steps of a resumed run in the bar but not in the speed', () => {
    const { written, wait, options } = stand(false);
    const lines = progress({ ...options, total: 1000, done: 900, label: 'train' });
    wait(5000);
    lines.update(950);
    expect(written).toEqual(['train  950/1000  10.0 steps/s  ETA 5 s\n']);
  });

  it('puts a note above the bar and says nothing after done or when silent', () => {
    const { written, wait, options } = stand(true, { NO_COLOR: '' });
    const bar = progress({ ...options, total: 10, label: 'train' });
    bar.update(1);
    bar.note('checkpoint written');
    expect(written[1]).toBe('\r\x1b[Kcheckpoint written\n');
    bar.done();
    const count = written.length;
    wait(9000);
    bar.update(2);
    bar.note('late');
    bar.done();
    expect(written).toHaveLength(count);
    const silent = progress({ ...options, total: 10, label: 'train', silent: true });
    wait(9000);
    silent.update(5, 1);
    silent.note('unheard');
    silent.done();
    expect(written).toHaveLength(count);
  });
});

describe('formats', () => {
  it.each([
    [0.4, '0 s'],
    [59.6, '1:00 min'],
    [185, '3:05 min'],
    [7650, '2:07:30 h'],
  ])('formatDuration(%d) is %s', (seconds, expected) => expect(formatDuration(seconds)).toBe(expected));

  it.each([
    [0, '0.000'],
    [0.0123456, '0.01235'],
    [0.00012, '1.200e-4'],
    [123456, '1.235e+5'],
    [Number.NaN, 'NaN'],
  ])('formatMetric(%d) is %s', (value, expected) => expect(formatMetric(value)).toBe(expected));
});
