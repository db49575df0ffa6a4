// y[outer, index[j], inner] += src[outer, j, inner]. A thread owns a segment of one column of y and walks all indices,
// so the order of addition is that of j and no two threads write one place. Place 0 of y is that of index `start`.
fn evaluate(i: u32) {
  let inner = i % params.inner;
  let first = i / params.inner % params.segments * params.segment;
  let end = min(first + params.segment, params.size);
  let outer = i / (params.inner * params.segments);
  for (var s = first; s < end; s++) { store_y(outer, s, inner, 0.0); }
  for (var j = 0u; j < params.indices; j++) {
    let index = load_index(j) - i32(params.start);
    if (index >= i32(first) && index < i32(end)) {
      store_y(outer, u32(index), inner, load_y(outer, u32(index), inner) + load_src(outer, j, inner));
    }
  }
}
