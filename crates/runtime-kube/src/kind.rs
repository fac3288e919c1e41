//! The kinds of objects that a workload is made of, and which of them this cluster serves.

use std::collections::BTreeMap;

use kube::Client;
use kube::core::{ApiResource, GroupVersionKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Deployment,
    Service,
    DisruptionBudget,
    Autoscaler,
    NetworkPolicy,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Deployment, Self::Service, Self::DisruptionBudget, Self::Autoscaler, Self::NetworkPolicy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::Service => "Service",
            Self::DisruptionBudget => "PodDisruptionBudget",
            Self::Autoscaler => "HorizontalPodAutoscaler",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// Where the kind may be found, the best first.
    fn versions(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Deployment => &[("apps", "v1")],
            Self::Service => &[("", "v1")],
            Self::DisruptionBudget => &[("policy", "v1"), ("policy", "v1beta1")],
            Self::Autoscaler => &[("autoscaling", "v2"), ("autoscaling", "v1")],
            Self::NetworkPolicy => &[("networking.k8s.io", "v1")],
        }
    }
}

/// The version in which each kind is served here. Optional kinds that are not served are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Served(BTreeMap<Kind, (&'static str, &'static str)>);

impl Served {
    /// Asks the cluster, by one call.
    pub(crate) async fn discover(client: &Client) -> Result<Self, kube::Error> {
        let groups = client.list_api_groups().await?.groups;
        Ok(Self::among(|group, version| {
            group.is_empty()
                || groups.iter().filter(|g| g.name == group).flat_map(|g| &g.versions).any(|v| v.version == version)
        }))
    }

    pub(crate) fn among(is_served: impl Fn(&str, &str) -> bool) -> Self {
        let best = |kind: Kind| kind.versions().iter().copied().find(|(group, version)| is_served(group, version));
        Self(Kind::ALL.into_iter().filter_map(|kind| Some((kind, best(kind)?))).collect())
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.0.keys().copied()
    }

    /// `apps/v1`
    pub(crate) fn api_version(&self, kind: Kind) -> Option<String> {
        let (group, version) = self.0.get(&kind)?;
        Some(if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") })
    }

    pub(crate) fn resource(&self, kind: Kind) -> Option<ApiResource> {
        let (group, version) = self.0.get(&kind)?;
        Some(ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.name())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_version_that_is_served_is_used() {
        let old = Served::among(|group, version| !matches!((group, version), ("policy", "v1") | ("autoscaling", "v2")));
        assert_eq!(old.api_version(Kind::DisruptionBudget).as_deref(), Some("policy/v1beta1"));
        assert_eq!(old.api_version(Kind::Autoscaler).as_deref(), Some("autoscaling/v1"));
        assert_eq!(old.api_version(Kind::Service).as_deref(), Some("v1"));
        let new = Served::among(|_, _| true);
        assert_eq!(new.api_version(Kind::Autoscaler).as_deref(), Some("autoscaling/v2"));
        let bare = Served::among(|group, _| group.is_empty() || group == "apps");
        assert_eq!(bare.api_version(Kind::NetworkPolicy), None);
        let plurals: Vec<_> = new.kinds().filter_map(|kind| Some(new.resource(kind)?.plural)).collect();
        let expected =
            ["deployments", "services", "poddisruptionbudgets", "horizontalpodautoscalers", "networkpolicies"];
        assert_eq!(plurals, expected);
    }
}
