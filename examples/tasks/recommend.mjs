// Recommendation: what a user makes of an item, from eight ratings of others. Tastes have three hidden numbers.
//   weightloom train examples/tasks/recommend.mjs --steps 4000
//   weightloom train examples/tasks/recommend.mjs --steps 4000 --method pooled
// Claim: the network made for this user rates unseen items better than the crowd's average opinion.
const FEATURES = 6;
const TASTE = 3;
/** How tastes weigh the features of an item: the same for all users, and for a learner to find out. */
const BASIS = Float32Array.from({ length: FEATURES * TASTE }, (_, i) => Math.cos(1 + 7.3 * i));

export default {
  name: 'recommend',
  kind: 'regression',
  inShape: [FEATURES],
  outSize: 1, // a rating from -2 to 2
  shots: 8,
  latentSize: TASTE,
  draw({ support, query, latent }, stream) {
    for (let k = 0; k < TASTE; k++) latent[k] = stream.normal();
    for (const { n, x, y } of [support, query])
      for (let i = 0; i < n; i++) {
        let liking = 0.5;
        for (let f = 0; f < FEATURES; f++) {
          const feature = (x[i * FEATURES + f] = 2 * stream.uniform() - 1);
          for (let k = 0; k < TASTE; k++) liking += feature * BASIS[f * TASTE + k] * latent[k];
        }
        y[i] = 2 * Math.tanh(liking / 2) + 0.1 * stream.normal();
      }
  },
};
