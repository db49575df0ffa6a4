// A thread computes ROWS x COLUMNS results, a subgroup of SUBGROUP threads ROWS x SUBGROUP * COLUMNS: for software
// adapters, where a load takes as long as dozens of multiply-adds and a shuffle as long as one. So a is loaded for
// SUBGROUP steps of k at once, a step by each lane.
@compute @workgroup_size(SUBGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let group = group_index(id);
  if (group >= params.groups) { return; }
  let column = group % params.tiles_n * (SUBGROUP * COLUMNS) + lane;
  let row = group / params.tiles_n % params.tiles_m * ROWS;
  let batch = group / (params.tiles_n * params.tiles_m) % params.batch;
  let part = group / (params.tiles_n * params.tiles_m * params.batch);
  let range = k_range(batch, part);
  var sum: array<array<f32, COLUMNS>, ROWS>;
  for (var k = range.x; k < range.y; k += SUBGROUP) {
    var a: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      a[r] = load_a(batch, min(row + r, params.m - 1u), min(k + lane, range.y - 1u));
    }
    let steps = min(SUBGROUP, range.y - k);
    for (var step = 0u; step < steps; step++) {
      var b: array<f32, COLUMNS>;
      for (var c = 0u; c < COLUMNS; c++) {
        b[c] = load_b(batch, k + step, min(column + c * SUBGROUP, params.n - 1u));
      }
      for (var r = 0u; r < ROWS; r++) {
        let x = subgroupShuffle(a[r], step);
        for (var c = 0u; c < COLUMNS; c++) { sum[r][c] = fma(x, b[c], sum[r][c]); }
      }
    }
  }
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLUMNS; c++) {
      if (row + r < params.m && column + c * SUBGROUP < params.n) {
        store_y(part * params.batch + batch, row + r, column + c * SUBGROUP, sum[r][c]);
      }
    }
  }
}
