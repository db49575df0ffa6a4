// A thread computes ROWS x COLUMNS results from registers, without shared memory: for software adapters, where barriers
// are dear, and for small products. Neighbouring threads own neighbouring columns.
@compute @workgroup_size(THREADS_N, THREADS_M)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let group = group_index(id);
  if (group >= params.groups) { return; }
  let column = group % params.tiles_n * (THREADS_N * COLUMNS) + local.x;
  let row = group / params.tiles_n % params.tiles_m * (THREADS_M * ROWS) + local.y;
  let batch = group / (params.tiles_n * params.tiles_m) % params.batch;
  let part = group / (params.tiles_n * params.tiles_m * params.batch);
  let range = k_range(batch, part);
  var sum: array<array<f32, COLUMNS>, ROWS>;
  for (var k = range.x; k < range.y; k++) {
    var b: array<f32, COLUMNS>;
    for (var c = 0u; c < COLUMNS; c++) { b[c] = load_b(batch, k, min(column + c * THREADS_N, params.n - 1u)); }
    for (var r = 0u; r < ROWS; r++) {
      let a = load_a(batch, min(row + r * THREADS_M, params.m - 1u), k);
      for (var c = 0u; c < COLUMNS; c++) { sum[r][c] = fma(a, b[c], sum[r][c]); }
    }
  }
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLUMNS; c++) {
      if (row + r * THREADS_M < params.m && column + c * THREADS_N < params.n) {
        store_y(part * params.batch + batch, row + r * THREADS_M, column + c * THREADS_N, sum[r][c]);
      }
    }
  }
}
