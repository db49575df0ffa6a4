// A subgroup multiplies ROWS x COLUMNS matrices of packed operands (see matmulPack.wgsl), with sums in f32. With PARTS
// == 2 the products of a first with a second part are summed apart (Ootomo and Yokota, arXiv 2203.03341).
const SUBGROUPS = SUBGROUPS_M * SUBGROUPS_N;
const SIZE = MATRIX_M * MATRIX_N;

var<workgroup> scratch: array<f32, SUBGROUPS * PARTS * SIZE>;

fn power_of_two(exponent: i32) -> f32 { return bitcast<f32>(u32(exponent + 127) << 23u); }

@compute @workgroup_size(SUBGROUPS * SUBGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let group = group_index(id);
  if (group >= params.groups) { return; }
  let subgroup = thread / SUBGROUP;
  let lane = thread % SUBGROUP;
  let columns = group % params.tiles_n * (SUBGROUPS_N * COLUMNS) + subgroup % SUBGROUPS_N * COLUMNS;
  let rows = group / params.tiles_n % params.tiles_m * (SUBGROUPS_M * ROWS) + subgroup / SUBGROUPS_N * ROWS;
  let batch = group / (params.tiles_n * params.tiles_m) % params.batch;
  let part = group / (params.tiles_n * params.tiles_m * params.batch);
  let last = min((part + 1u) * params.k_chunk, params.k_blocks);
  let rest_left = params.batch * params.blocks_m * params.k_blocks;
  let rest_right = params.batch * params.blocks_n * params.k_blocks;
  var sum: array<array<Result, COLUMNS>, ROWS>;
  var rest: array<array<Result, COLUMNS>, ROWS>;
  for (var k = part * params.k_chunk; k < last; k++) {
    var b: array<Right, COLUMNS>;
    var b_rest: array<Right, COLUMNS>;
    for (var c = 0u; c < COLUMNS; c++) {
      let at = (batch * params.blocks_n + min(columns + c, params.blocks_n - 1u)) * params.k_blocks + k;
      b[c] = right_matrix(at);
      if (PARTS == 2u) { b_rest[c] = right_matrix(rest_right + at); }
    }
    for (var r = 0u; r < ROWS; r++) {
      let at = (batch * params.blocks_m + min(rows + r, params.blocks_m - 1u)) * params.k_blocks + k;
      let a = left_matrix(at);
      for (var c = 0u; c < COLUMNS; c++) { sum[r][c] = multiply(a, b[c], sum[r][c], lane); }
      if (PARTS == 2u) {
        let a_rest = left_matrix(rest_left + at);
        for (var c = 0u; c < COLUMNS; c++) {
          rest[r][c] = multiply(a_rest, b[c], multiply(a, b_rest[c], rest[r][c], lane), lane);
        }
      }
    }
  }
  let base = subgroup * PARTS * SIZE;
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLUMNS; c++) {
      store_result(base, sum[r][c], lane);
      if (PARTS == 2u) { store_result(base + SIZE, rest[r][c], lane); }
      workgroupBarrier();
      for (var e = lane; e < SIZE; e += SUBGROUP) {
        let m = (rows + r) * MATRIX_M + e / MATRIX_N;
        let n = (columns + c) * MATRIX_N + e % MATRIX_N;
        if (m < params.m && n < params.n) {
          var value = scratch[base + e];
          if (PARTS == 2u) { value += scratch[base + SIZE + e] / 2048.0; }
          let exponent = load_left_exponent(batch * params.m + m) + load_right_exponent(batch * params.n + n);
          let half = exponent / 2;
          let result = value * power_of_two(half) * power_of_two(exponent - half);
          store_y(part * params.batch + batch, m, n, result);
        }
      }
      workgroupBarrier();
    }
  }
}
