// Stage S of a chain, the product of a task: THREADS_M_S x THREADS_N_S threads, ROWS_S x COLUMNS_S results each at a time.
fn stage_S(task: u32, lane: u32) {
  if (lane >= THREADS_M_S * THREADS_N_S) { return; }
  for (var top = lane / THREADS_N_S; top < M_S; top += THREADS_M_S * ROWS_S) {
    for (var left = lane % THREADS_N_S; left < N_S; left += THREADS_N_S * COLUMNS_S) {
      // Set to zero by hand: software drivers do it for the first round only.
      var sum: array<array<f32, COLUMNS_S>, ROWS_S>;
      for (var r = 0u; r < ROWS_S; r++) { for (var c = 0u; c < COLUMNS_S; c++) { sum[r][c] = 0.0; } }
      for (var k = 0u; k < K_S; k++) {
        var b: array<f32, COLUMNS_S>;
        for (var c = 0u; c < COLUMNS_S; c++) { b[c] = load_b_S(task, k, min(left + c * THREADS_N_S, N_S - 1u)); }
        for (var r = 0u; r < ROWS_S; r++) {
          let a = load_a_S(task, min(top + r * THREADS_M_S, M_S - 1u), k);
          for (var c = 0u; c < COLUMNS_S; c++) { sum[r][c] = fma(a, b[c], sum[r][c]); }
        }
      }
      for (var r = 0u; r < ROWS_S; r++) {
        for (var c = 0u; c < COLUMNS_S; c++) {
          let row = top + r * THREADS_M_S;
          let column = left + c * THREADS_N_S;
          if (row < M_S && column < N_S) { store_y_S(task, row, column, sum[r][c]); }
        }
      }
    }
  }
}
