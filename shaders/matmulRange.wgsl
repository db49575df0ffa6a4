fn k_range(batch: u32, part: u32) -> vec2<u32> {
  let first = part * params.k_chunk;
  return vec2(first, min(first + params.k_chunk, params.k));
}
