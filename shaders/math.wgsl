// Functions that a scalar's WGSL may call where the built-in one is undefined for some arguments, or where a compiler
// may assume that no NaN or infinity occurs. Tests on bit patterns cannot be optimised away.

fn math_is_nan(a: f32) -> bool { return (bitcast<u32>(a) & 0x7fffffffu) > 0x7f800000u; }
fn math_is_finite(a: f32) -> bool { return (bitcast<u32>(a) & 0x7f800000u) != 0x7f800000u; }

var<private> math_nan_bits: u32 = 0x7fc00000u;
var<private> math_infinity_bits: u32 = 0x7f800000u;
fn math_nan() -> f32 { return bitcast<f32>(math_nan_bits); }
fn math_infinity() -> f32 { return bitcast<f32>(math_infinity_bits); }

fn math_equal(a: f32, b: f32) -> bool {
  let x = bitcast<u32>(a);
  let y = bitcast<u32>(b);
  let same = x == y || ((x | y) & 0x7fffffffu) == 0u;
  return same && !math_is_nan(a);
}

// Both propagate NaN.
fn math_min(a: f32, b: f32) -> f32 {
  if (math_is_nan(a) || math_is_nan(b)) { return math_nan(); }
  return min(a, b);
}
fn math_max(a: f32, b: f32) -> f32 {
  if (math_is_nan(a) || math_is_nan(b)) { return math_nan(); }
  return max(a, b);
}

// C's powf: a negative base has a real power where the exponent is an integer.
fn math_pow(a: f32, b: f32) -> f32 {
  if (b == 0.0 || a == 1.0) { return 1.0; }
  if (math_is_nan(a) || math_is_nan(b)) { return math_nan(); }
  if (!math_is_finite(b)) {
    if (abs(a) == 1.0) { return 1.0; }
    return select(0.0, math_infinity(), (abs(a) > 1.0) == (b > 0.0));
  }
  let integer = floor(b) == b;
  let odd = integer && abs(b) < 16777216.0 && (i32(clamp(b, -16777216.0, 16777216.0)) & 1) == 1;
  let negative = (bitcast<u32>(a) >> 31u) == 1u;
  var size: f32;
  if (a == 0.0) { size = select(0.0, math_infinity(), b < 0.0); }
  else if (!math_is_finite(a)) { size = select(math_infinity(), 0.0, b < 0.0); }
  else if (negative && !integer) { return math_nan(); }
  else { size = pow(abs(a), b); }
  return select(size, -size, negative && odd);
}

// e^a - 1 without cancellation near 0: its series there.
fn math_expm1(a: f32) -> f32 {
  if (abs(a) < 0.5) {
    let p = 1.0 + a / 2.0 * (1.0 + a / 3.0 * (1.0 + a / 4.0 * (1.0 + a / 5.0 * (1.0 + a / 6.0 * (1.0 + a / 7.0 *
      (1.0 + a / 8.0))))));
    return a * p;
  }
  return exp(a) - 1.0;
}

// log(1 + a) without cancellation near 0: 2 artanh(a / (2 + a)).
fn math_log1p(a: f32) -> f32 {
  if (abs(a) < 0.5) {
    let s = a / (2.0 + a);
    let q = s * s;
    return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 +
      q * (1.0 / 13.0)))))));
  }
  return log(1.0 + a);
}

fn math_tanh(a: f32) -> f32 {
  let e = math_expm1(-2.0 * min(abs(a), 20.0));
  return sign(a) * (-e / (2.0 + e));
}

// Abramowitz and Stegun 7.1.26 away from 0, its series near 0: error below 3e-7.
fn math_erf(a: f32) -> f32 {
  let x = abs(a);
  if (x < 0.5) {
    let q = a * a;
    return a * 1.1283791670955126 * (1.0 + q * (-1.0 / 3.0 + q * (1.0 / 10.0 + q * (-1.0 / 42.0 + q * (1.0 / 216.0 +
      q * (-1.0 / 1320.0 + q * (1.0 / 9360.0)))))));
  }
  let t = 1.0 / (1.0 + 0.3275911 * x);
  let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return sign(a) * (1.0 - p * exp(-x * x));
}

// The upper word of a product.
fn math_mul_high(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}

// 2/pi, after 32 zeros.
const math_two_over_pi = array(0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u);

// The quarter turns in |a|, a finite number of 2^15 or more, as a fraction of 2^32, modulo 4 turns: 64 bits of 2/pi that
// decide them, times the whole number that is a's significand (Payne and Hanek 1983).
fn math_quarters(a: f32) -> vec2<u32> {
  let bits = bitcast<u32>(a);
  let significand = (bits & 0x7fffffu) | 0x800000u;
  let start = ((bits >> 23u) & 0xffu) - 120u;
  let word = start >> 5u;
  let shift = start & 31u;
  var table = math_two_over_pi;
  var window = vec2(table[word], table[word + 1u]);
  if (shift > 0u) {
    window = (window << vec2(shift)) | (vec2(table[word + 1u], table[word + 2u]) >> vec2(32u - shift));
  }
  let high = significand * window.x + math_mul_high(significand, window.y);
  return vec2(high >> 30u, (high << 2u) | ((significand * window.y) >> 30u));
}

// sin(a + quarter pi/2) with an error below 2e-7. The built-in functions may be wrong by 5e-4, and more beyond pi.
fn math_sine(a: f32, quarter: i32) -> f32 {
  if (!math_is_finite(a)) { return math_nan(); }
  var turns: i32;
  var r: f32;
  if (abs(a) < 32768.0) {
    // pi/2 in parts of 9 bits, whose products with k are exact.
    let k = round(a * 0.6366197723675814);
    turns = i32(k);
    r = ((a - k * 1.5703125) - k * 0.00048351287841796875) - k * 3.13855707645416259765625e-7 - k * 6.0771005e-11;
  } else {
    let q = math_quarters(a);
    // Signed, so that the angle lies within a quarter turn around 0.
    let fraction = f32(bitcast<i32>(q.y)) * 3.6572952e-10;
    let whole = i32(q.x + (q.y >> 31u));
    r = select(fraction, -fraction, a < 0.0);
    turns = select(whole, -whole, a < 0.0);
  }
  let z = r * r;
  let s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4));
  let c = 1.0 - z * 0.5 + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
  let at = u32(turns + quarter);
  let y = select(s, c, (at & 1u) == 1u);
  return select(y, -y, (at & 2u) == 2u);
}
