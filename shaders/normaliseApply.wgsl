fn evaluate(i: u32) {
  let row = i / params.length;
  let j = i % params.length;
  store_y(row, j, (load_x(row, j) - load_x(row, 0u) - load_mean(row)) * load_inverse(row));
}
