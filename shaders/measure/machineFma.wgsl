// Eight chains of four multiply-adds. The factor and the number of rounds are data: nothing can be worked out ahead.
fn evaluate(i: u32) {
  let f = vec4(load_x(i) * 0.999);
  let t = vec4(0.001);
  var a = f;
  var b = f + 1.0;
  var c = f + 2.0;
  var d = f + 3.0;
  var e = f + 4.0;
  var g = f + 5.0;
  var h = f + 6.0;
  var k = f + 7.0;
  for (var r = 0u; r < params.repeats; r++) {
    a = a * f + t;
    b = b * f + t;
    c = c * f + t;
    d = d * f + t;
    e = e * f + t;
    g = g * f + t;
    h = h * f + t;
    k = k * f + t;
  }
  let sum = a + b + c + d + e + g + h + k;
  store_y(i, sum.x + sum.y + sum.z + sum.w);
}
