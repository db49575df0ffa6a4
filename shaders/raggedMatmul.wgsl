// One thread computes one row's results in COLUMNS columns, column_threads apart.
fn evaluate(i: u32) {
  let row = i / params.column_threads;
  let column = i % params.column_threads;
  // The last task that starts at or before the row (bisection over non-decreasing offsets).
  var low = 0u;
  var high = params.tasks;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (u32(load_offset(middle)) <= row) { low = middle; } else { high = middle; }
  }
  var sum: array<f32, COLUMNS>;
  for (var k = 0u; k < params.k; k++) {
    let x = load_x(row, k);
    for (var c = 0u; c < COLUMNS; c++) {
      sum[c] = fma(x, load_w(low, k, min(column + c * params.column_threads, params.n - 1u)), sum[c]);
    }
  }
  for (var c = 0u; c < COLUMNS; c++) {
    if (column + c * params.column_threads < params.n) { store_y(row, column + c * params.column_threads, sum[c]); }
  }
}
