var<workgroup> shared_sums: array<vec2<f32>, WIDTH>;

// The sum of one pair per lane, given to every lane of the row.
fn over_lanes(local: u32, value: vec2<f32>) -> vec2<f32> {
  var result = value;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    shared_sums[local] = result;
    workgroupBarrier();
    result += shared_sums[local ^ half];
    workgroupBarrier();
  }
  return result;
}
