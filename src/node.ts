/** `weightloom/node`: what needs a file system. */
export { loadMnist, loadOmniglot, loadOneShotRuns } from './data/load.js';
export { loadSafetensors, saveSafetensors, writeFileAtomic } from './io/files.js';
