// Adds up elements that lie params.count apart, so that neighbours read neighbours.
fn evaluate(i: u32) {
  var sum = 0.0;
  for (var r = 0u; r < READS; r++) { sum += load_x(i + r * params.count); }
  store_y(i, sum);
}
