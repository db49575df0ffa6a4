// A thread joins the means and squares of a row's parts, in their order (Chan, Golub and LeVeque 1979).
fn evaluate(row: u32) {
  var count = 0.0;
  var mean = 0.0;
  var squares = 0.0;
  for (var part = 0u; part < params.parts; part++) {
    let at = 2u * (row * params.parts + part);
    let more = f32(min(params.part_length, params.length - part * params.part_length));
    let delta = load_part(at) - mean;
    let all = count + more;
    mean += delta * (more / all);
    squares += load_part(at + 1u) + delta * delta * (count * more / all);
    count = all;
  }
  store_mean(row, mean);
  store_inverse(row, 1.0 / sqrt(squares / count + eps()));
}
