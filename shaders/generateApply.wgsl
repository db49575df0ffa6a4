// One thread computes a column of y for TASKS tasks: each element of their weights is made once, from one read of the
// basis, and used for ROWS rows of its task at a time.
fn evaluate(i: u32) {
  let column = i % params.columns;
  let first = i / params.columns * TASKS;
  var most = 0u;
  for (var t = 0u; t < TASKS; t++) {
    let rows = rows_of(first + t);
    most = max(most, rows.y - rows.x);
  }
  for (var row = 0u; row < most; row += ROWS) {
    // Set to zero by hand: software drivers do it for the first round only.
    var sum: array<f32, TASKS * ROWS>;
    for (var s = 0u; s < TASKS * ROWS; s++) { sum[s] = 0.0; }
    for (var k = 0u; k < params.depth; k++) {
      var w: array<f32, TASKS>;
      for (var t = 0u; t < TASKS; t++) { w[t] = base(k, column); }
      for (var e = 0u; e < params.width; e++) {
        let b = load_basis(e, k, column);
        for (var t = 0u; t < TASKS; t++) { w[t] = fma(load_code(min(first + t, params.tasks - 1u), e), b, w[t]); }
      }
      for (var t = 0u; t < TASKS; t++) {
        let rows = rows_of(first + t);
        for (var r = 0u; r < ROWS; r++) {
          let at = t * ROWS + r;
          if (rows.x + row + r < rows.y) { sum[at] = fma(load_x(rows.x + row + r, k), w[t], sum[at]); }
        }
      }
    }
    for (var t = 0u; t < TASKS; t++) {
      let rows = rows_of(first + t);
      for (var r = 0u; r < ROWS; r++) {
        if (rows.x + row + r < rows.y) { store_y(rows.x + row + r, column, sum[t * ROWS + r]); }
      }
    }
  }
}
