// What the lane at `local ^ half` holds. All threads of the workgroup call it.
var<workgroup> lane_values: array<f32, WIDTH>;

fn from_lane(local: u32, half: u32, value: f32) -> f32 {
  lane_values[local] = value;
  workgroupBarrier();
  let other = lane_values[local ^ half];
  workgroupBarrier();
  return other;
}
