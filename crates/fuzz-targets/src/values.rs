//! Names, numbers and times that are written as text: what is read is written so that it is read as the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use modelyard_core::analysis::Increase;
use modelyard_core::event::EventKind;
use modelyard_core::manifest;
use modelyard_core::{
    Actor, AliasName, BackendId, ChainHead, CookieName, Datatype, DeploymentName, Digest, Epoch, Figure, Format,
    GatewayId, HeaderName, Magnitude, MetricName, ModelName, Quantity, Rate, RequestId, RevisionNumber, Role, Salt,
    Span, StateVersion, Timestamp, TokenId, TokenName, TokenSecret, Unit, VariantName, VersionName, VersionRef, Weight,
    WorkloadId, request_id,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One text, read as each of them.
pub(crate) fn all(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    names(text);
    written::<ChainHead>(text);
    written::<Datatype>(text);
    written::<Digest>(text);
    written::<EventKind>(text);
    written::<Format>(text);
    written::<Increase>(text);
    written::<Role>(text);
    written::<Span>(text);
    written::<Timestamp>(text);
    written::<Epoch>(text);
    written::<RevisionNumber>(text);
    written::<StateVersion>(text);
    written::<TokenId>(text);
    quantity(text);
    number::<Weight>(text);
    number::<Rate>(text);
    number::<Figure>(text);
    number::<Magnitude>(text);
    if let Ok(secret) = text.parse::<TokenSecret>() {
        assert_eq!(secret.expose(), text);
        // Whatever the secret, the same is shown.
        let other = TokenSecret::from_random([0; 32]);
        assert_eq!(format!("{secret:?}"), format!("{other:?}"));
    }
    if let Some((revision, variant)) = request_id::assigned(text) {
        let id = request_id::write(7, Some((revision, &variant)));
        assert_eq!(request_id::assigned(&id), Some((revision, variant)));
    }
    if let Ok(strategy) = manifest::parse_strategy(text) {
        let written = modelyard_core::yaml::to_string(&strategy).expect("a strategy is written");
        assert_eq!(manifest::parse_strategy(&written), Ok(strategy), "{written}");
    }
}

/// Names are as they were written: a normal form would be another name.
fn names(text: &str) {
    named::<Actor>(text);
    named::<AliasName>(text);
    named::<BackendId>(text);
    named::<CookieName>(text);
    named::<DeploymentName>(text);
    named::<GatewayId>(text);
    named::<HeaderName>(text);
    named::<MetricName>(text);
    named::<ModelName>(text);
    named::<RequestId>(text);
    named::<Salt>(text);
    named::<TokenName>(text);
    named::<Unit>(text);
    named::<VariantName>(text);
    named::<VersionName>(text);
    named::<VersionRef>(text);
    if let Some(id) = named::<WorkloadId>(text) {
        assert!(id.deployment().parse::<DeploymentName>().is_ok());
    }
}

fn named<T: FromStr + Display + Debug + PartialEq>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    assert_eq!(value.to_string(), text);
    Some(value)
}

fn written<T: FromStr<Err: Debug> + Display + Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string();
        assert_eq!(again.parse::<T>().expect("what was written is read"), value, "{text:?}, written {again:?}");
    }
}

fn quantity(text: &str) {
    let Ok(quantity) = text.parse::<Quantity>() else { return };
    let whole = Quantity::from_units(quantity.units());
    assert!(whole <= quantity, "{text:?}");
    assert_eq!(quantity.units().to_string().parse(), Ok(whole), "{text:?}");
}

/// Those that JSON has as numbers.
fn number<T: Serialize + DeserializeOwned + Debug + PartialEq>(text: &str) {
    if let Ok(value) = serde_json::from_str::<T>(text) {
        let again = serde_json::to_string(&value).expect("a number is written");
        assert_eq!(serde_json::from_str::<T>(&again).expect("what was written is read"), value, "{text:?}");
    }
}
