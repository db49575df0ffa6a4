// Anomalies in a drifting stream: four sensors whose normal readings wander, so that what was normal yesterday is an
// alarm today. A task is one moment: four readings known to be normal (class 0), four known alarms (class 1).
//   weightloom train examples/tasks/drift.mjs --steps 1000
//   weightloom train examples/tasks/drift.mjs --steps 1000 --method pooled
// Claim: the detector made anew for the moment tells alarms apart; one detector for all times is little better than chance.
const SENSORS = 4;

export default {
  name: 'drift',
  kind: 'classification',
  inShape: [SENSORS],
  outSize: 2,
  shots: 4,
  draw({ support, query }, stream) {
    const time = 2 * Math.PI * stream.uniform();
    const at = (when, s) => 3 * Math.cos(when * (1 + (s >> 1)) + 1.5 * s);
    for (const { n, x, y } of [support, query])
      for (let i = 0; i < n; i++) {
        const alarm = i >= n / 2;
        y[i] = alarm ? 1 : 0;
        // An alarm is a reading that is normal at another time.
        const when = alarm ? time + Math.PI * (0.5 + stream.uniform()) : time;
        for (let s = 0; s < SENSORS; s++) x[i * SENSORS + s] = at(when, s) + 0.7 * stream.normal();
      }
  },
};
