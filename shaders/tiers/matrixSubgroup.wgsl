// Matrices in the registers of a subgroup. The packed operands are the first two bindings.
alias Left = subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>;
alias Right = subgroup_matrix_right<f16, MATRIX_N, MATRIX_K>;
alias Result = subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>;

fn left_matrix(at: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&buffer0, at * (MATRIX_M * MATRIX_K), MATRIX_K);
}
fn right_matrix(at: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&buffer1, at * (MATRIX_N * MATRIX_K), MATRIX_K);
}
fn multiply(a: Left, b: Right, c: Result, lane: u32) -> Result { return subgroupMatrixMultiplyAccumulate(a, b, c); }
fn store_result(at: u32, c: Result, lane: u32) { subgroupMatrixStore<row_major>(&scratch, at, c, MATRIX_N); }
