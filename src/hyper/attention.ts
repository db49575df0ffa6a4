import { dense, serial, transformer } from '../nn/index.js';
import { type ChunkedOptions, chunkedHead, type Head } from './head.js';
import { trunkHead } from './levels.js';

export interface AttentionHeadOptions extends ChunkedOptions {
  /** Width of the transformer; 32 unless given. */
  readonly width?: number;
  /** Its layers; 1 unless given. */
  readonly layers?: number;
  readonly heads?: number;
}

/**
 * Attention over slots: every chunk of the weights has a token, its learned embedding beside the code, and a small
 * transformer lets the tokens read each other before one basis `[width,chunk]` turns each into its chunk. A chunked head
 * (see `chunkedHead`) whose chunks know of each other; it needs no trunk.
 */
export const attentionHead = ({
  width = 32,
  layers = 1,
  heads = 1,
  ...chunked
}: AttentionHeadOptions): Head =>
  trunkHead(
    serial(dense(width, { gain: 1 }), transformer(width, { layers, heads })),
    chunkedHead(chunked),
    hidden => hidden,
  );
