// Character models of many languages: which letter follows the last two, from two words' worth of text a letter. A language
// is a random order of the letters; the next letter is most often the successor of the last, else that of the one before.
//   weightloom train examples/tasks/languages.mjs --steps 1500
//   weightloom train examples/tasks/languages.mjs --steps 1500 --method pooled
// Claim: the output layer made from a sample of a language predicts its text; one model for all languages only guesses.
const LETTERS = 6;

export default {
  name: 'languages',
  kind: 'classification',
  inShape: [2 * LETTERS], // the last letter and the one before, one-hot
  outSize: LETTERS,
  shots: 4,
  draw({ support, query }, stream) {
    const before = stream.shuffle(Array.from({ length: LETTERS }, (_, letter) => letter)); // before[next]
    for (const { n, x, y } of [support, query])
      for (let i = 0; i < n; i++) {
        const next = Math.floor((i * LETTERS) / n);
        y[i] = next;
        const regular = stream.uniform() < 0.8;
        const [last, older] = [before[next], stream.below(LETTERS)];
        x[i * 2 * LETTERS + (regular ? last : older)] = 1;
        x[i * 2 * LETTERS + LETTERS + (regular ? older : last)] = 1;
      }
  },
};
