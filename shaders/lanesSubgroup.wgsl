// The same, without shared memory where both lanes are in one subgroup.
var<workgroup> lane_values: array<f32, WIDTH>;

fn from_lane(local: u32, half: u32, value: f32) -> f32 {
  if (half < SUBGROUP) { return subgroupShuffleXor(value, half); }
  lane_values[local] = value;
  workgroupBarrier();
  let other = lane_values[local ^ half];
  workgroupBarrier();
  return other;
}
