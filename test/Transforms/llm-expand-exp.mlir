// RUN: %llm-opt %s --llm-expand-exp | FileCheck %s

// CHECK-LABEL: func @exp
// CHECK-NOT: math.exp
// CHECK: math.fma
func.func @exp(%x: f32) -> f32 {
  %y = math.exp %x : f32
  return %y : f32
}

// Nothing else is approximated.

// CHECK-LABEL: func @others
// CHECK: math.exp %{{.*}} : f64
// CHECK: math.log %{{.*}} : f32
// CHECK: math.tanh %{{.*}} : f32
func.func @others(%x: f64, %y: f32) -> (f64, f32, f32) {
  %a = math.exp %x : f64
  %b = math.log %y : f32
  %c = math.tanh %y : f32
  return %a, %b, %c : f64, f32, f32
}
