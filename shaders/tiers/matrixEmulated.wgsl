// The same without subgroup matrices: a matrix is its place in memory, a lane holds every SUBGROUP-th result.
const RESULTS = MATRIX_M * MATRIX_N / SUBGROUP;
alias Left = u32;
alias Right = u32;
alias Result = array<f32, RESULTS>;

fn left_matrix(at: u32) -> Left { return at * (MATRIX_M * MATRIX_K); }
fn right_matrix(at: u32) -> Right { return at * (MATRIX_N * MATRIX_K); }
fn multiply(a: Left, b: Right, c: Result, lane: u32) -> Result {
  var sum = c;
  for (var i = 0u; i < RESULTS; i++) {
    let e = i * SUBGROUP + lane;
    for (var k = 0u; k < MATRIX_K; k++) {
      let left = f32(load_left(a + e / MATRIX_N * MATRIX_K + k));
      sum[i] = fma(left, f32(load_right(b + e % MATRIX_N * MATRIX_K + k)), sum[i]);
    }
  }
  return sum;
}
fn store_result(at: u32, c: Result, lane: u32) {
  for (var i = 0u; i < RESULTS; i++) { scratch[at + i * SUBGROUP + lane] = c[i]; }
}
