// y[outer, j, inner] = x[outer, index[j], inner]
fn evaluate(i: u32) {
  let outer = i / (INDICES * INNER);
  let j = i / INNER % INDICES;
  let inner = i % INNER;
  let index = load_index(j);
  var value = math_nan();
  if (index >= 0 && u32(index) < SIZE) { value = load_x(outer, u32(index), inner); }
  store_y(outer, j, inner, value);
}
