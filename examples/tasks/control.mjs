// Control with a hidden mass: what a push does to a cart of unknown mass and friction, from five transitions.
//   weightloom train examples/tasks/control.mjs --steps 4000
//   weightloom train examples/tasks/control.mjs --steps 4000 --method pooled
// Claim: the network made for this cart predicts its next step better than one network for all carts.
const DT = 0.1;

export default {
  name: 'control',
  kind: 'regression',
  inShape: [2], // velocity, force
  outSize: 1, // change of velocity in one step of time
  shots: 5,
  latentSize: 2,
  draw({ support, query, latent }, stream) {
    const mass = Math.exp(-1 + 2 * stream.uniform());
    const friction = 0.2 + 0.8 * stream.uniform();
    latent[0] = mass;
    latent[1] = friction;
    for (const { n, x, y } of [support, query]) {
      let velocity = stream.normal();
      for (let i = 0; i < n; i++) {
        const force = 4 * stream.normal();
        const change = (DT * (force - friction * velocity * Math.abs(velocity))) / mass;
        x[2 * i] = velocity;
        x[2 * i + 1] = force;
        y[i] = change;
        velocity += change;
      }
    }
  },
};
