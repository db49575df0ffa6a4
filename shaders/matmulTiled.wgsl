// A workgroup stages TILE_M x TILE_K of a and TILE_K x TILE_N of b in shared memory; a thread computes ROWS x COLUMNS
// results from registers. Tiles are stored with k outermost, so that the inner loop reads neighbours.
const TILE_M = THREADS_M * ROWS;
const TILE_N = THREADS_N * COLUMNS;
const THREADS = THREADS_M * THREADS_N;

var<workgroup> tile_a: array<f32, TILE_K * (TILE_M + 1u)>;
var<workgroup> tile_b: array<f32, TILE_K * TILE_N>;

@compute @workgroup_size(THREADS_N, THREADS_M)
fn main(
  @builtin(workgroup_id) id: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let group = group_index(id);
  if (group >= params.groups) { return; }
  let first_n = group % params.tiles_n * TILE_N;
  let first_m = group / params.tiles_n % params.tiles_m * TILE_M;
  let batch = group / (params.tiles_n * params.tiles_m) % params.batch;
  let part = group / (params.tiles_n * params.tiles_m * params.batch);
  let range = k_range(batch, part);
  var sum: array<array<f32, COLUMNS>, ROWS>;
  for (var first_k = range.x; first_k < range.y; first_k += TILE_K) {
    // Neighbouring threads walk the axis along which the operand is contiguous.
    for (var e = thread; e < TILE_M * TILE_K; e += THREADS) {
      let m = select(e / TILE_K, e % TILE_M, A_BY_ROWS == 0u);
      let k = select(e % TILE_K, e / TILE_M, A_BY_ROWS == 0u);
      var value = 0.0;
      if (first_k + k < range.y) { value = load_a(batch, min(first_m + m, params.m - 1u), first_k + k); }
      tile_a[k * (TILE_M + 1u) + m] = value;
    }
    for (var e = thread; e < TILE_K * TILE_N; e += THREADS) {
      let n = select(e / TILE_K, e % TILE_N, B_BY_ROWS == 1u);
      let k = select(e % TILE_K, e / TILE_N, B_BY_ROWS == 1u);
      var value = 0.0;
      if (first_k + k < range.y) { value = load_b(batch, first_k + k, min(first_n + n, params.n - 1u)); }
      tile_b[k * TILE_N + n] = value;
    }
    workgroupBarrier();
    for (var k = 0u; k < TILE_K; k++) {
      var b: array<f32, COLUMNS>;
      for (var c = 0u; c < COLUMNS; c++) { b[c] = tile_b[k * TILE_N + local.x + c * THREADS_N]; }
      for (var r = 0u; r < ROWS; r++) {
        let a = tile_a[k * (TILE_M + 1u) + local.y + r * THREADS_M];
        for (var c = 0u; c < COLUMNS; c++) { sum[r][c] = fma(a, b[c], sum[r][c]); }
      }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLUMNS; c++) {
      let m = first_m + local.y + r * THREADS_M;
      let n = first_n + local.x + c * THREADS_N;
      if (m < params.m && n < params.n) { store_y(part * params.batch + batch, m, n, sum[r][c]); }
    }
  }
}
