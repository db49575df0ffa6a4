// One thread computes one row's results in COLUMNS columns, a stride of COLUMN_THREADS apart.
fn evaluate(i: u32) {
  let row = i / COLUMN_THREADS;
  let column = i % COLUMN_THREADS;
  // The last task that starts at or before the row (bisection over non-decreasing offsets).
  var low = 0u;
  var high = TASKS;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (u32(load_offset(middle)) <= row) { low = middle; } else { high = middle; }
  }
  var sum: array<f32, COLUMNS>;
  for (var k = 0u; k < K; k++) {
    let x = load_x(row, k);
    for (var c = 0u; c < COLUMNS; c++) {
      sum[c] = fma(x, load_w(low, k, min(column + c * COLUMN_THREADS, N - 1u)), sum[c]);
    }
  }
  for (var c = 0u; c < COLUMNS; c++) {
    if (column + c * COLUMN_THREADS < N) { store_y(row, column + c * COLUMN_THREADS, sum[c]); }
  }
}
