// y[outer, j, inner] = x[outer, index[j], inner]
fn evaluate(i: u32) {
  let outer = i / (params.indices * params.inner);
  let j = i / params.inner % params.indices;
  let inner = i % params.inner;
  let index = load_index(j);
  var value = math_nan();
  if (index >= 0 && u32(index) < params.size) { value = load_x(outer, u32(index), inner); }
  store_y(outer, j, inner, value);
}
