// take from a range of x that starts at place `first` of the axis. The ranges are run in order: what the first one does not
// hold is NaN until one does.
fn evaluate(i: u32) {
  let outer = i / (params.indices * params.inner);
  let j = i / params.inner % params.indices;
  let inner = i % params.inner;
  let index = load_index(j) - i32(params.first);
  if (index >= 0 && u32(index) < params.size) { store_y(outer, j, inner, load_x(outer, u32(index), inner)); }
  else if (params.first == 0u) { store_y(outer, j, inner, math_nan()); }
}
