//! The two precisions of thresholds and weights, and how features compare with them.

/// A threshold or a weight.
pub(super) trait Number: Copy + Send + Sync + 'static {
    const NAN: Self;
    fn wide(self) -> f64;
}

impl Number for f32 {
    const NAN: Self = f32::NAN;
    fn wide(self) -> f64 {
        self.into()
    }
}

impl Number for f64 {
    const NAN: Self = f64::NAN;
    fn wide(self) -> f64 {
        self
    }
}

/// A feature: compared in single precision with a threshold in single, and in double with anything else.
pub(super) trait Feature<T>: Copy {
    type Common: Copy + PartialOrd;
    fn common(self) -> Self::Common;
    fn threshold(threshold: T) -> Self::Common;
    fn is_missing(self) -> bool;
}

impl Feature<f32> for f32 {
    type Common = f32;
    fn common(self) -> f32 {
        self
    }
    fn threshold(threshold: f32) -> f32 {
        threshold
    }
    fn is_missing(self) -> bool {
        self.is_nan()
    }
}

macro_rules! in_double {
    ($feature:ty, $threshold:ty) => {
        impl Feature<$threshold> for $feature {
            type Common = f64;
            fn common(self) -> f64 {
                self.into()
            }
            fn threshold(threshold: $threshold) -> f64 {
                threshold.into()
            }
            fn is_missing(self) -> bool {
                self.is_nan()
            }
        }
    };
}
in_double!(f32, f64);
in_double!(f64, f32);
in_double!(f64, f64);
