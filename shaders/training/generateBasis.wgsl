// One thread computes CODES elements of the gradient of the basis, which differ in the code's element: it makes one
// element of each task's gradient of W and adds it to all of them.
fn evaluate(i: u32) {
  let column = i % params.columns;
  let k = i / params.columns % params.depth;
  let first = i / (params.columns * params.depth) * CODES;
  var sum: array<f32, CODES>;
  for (var t = 0u; t < params.tasks; t++) {
    let rows = rows_of(t);
    var dw = 0.0;
    for (var r = rows.x; r < rows.y; r++) { dw = fma(load_x(r, k), load_g(r, column), dw); }
    for (var c = 0u; c < CODES; c++) { sum[c] = fma(load_code(t, min(first + c, params.width - 1u)), dw, sum[c]); }
  }
  for (var c = 0u; c < CODES; c++) {
    if (first + c < params.width) { store_y(first + c, k, column, sum[c]); }
  }
}
