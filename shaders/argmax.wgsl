fn evaluate(row: u32) {
  var best = 0u;
  var largest = load_x(row, 0u);
  for (var j = 1u; j < params.length; j++) {
    let value = load_x(row, j);
    if (!math_is_nan(largest) && (value > largest || math_is_nan(value))) {
      best = j;
      largest = value;
    }
  }
  store_y(row, i32(best));
}
