//! Who may depend on whom: rules as data, checked against what cargo resolved.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

const PREFIX: &str = "modelyard-";

/// Which crates of this workspace a crate may import (names without `modelyard-`). Dev-dependencies may add
/// `test-support`. A crate that is not listed here or in `SEES_ALL` is an error: give it a rule.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("planner", &["core"]),
    ("simulation", &["core", "planner"]),
    ("store", &["core"]),
    ("runtime", &["core"]),
    ("runtime-local", &["core", "runtime"]),
    ("runtime-kube", &["core", "runtime"]),
    ("protocol", &["core"]),
    ("engine", &["core", "protocol"]),
    ("grpc", &["protocol"]),
    ("engine-tensorflow", &["core", "engine", "protocol"]),
    ("worker", &["core", "engine", "engine-tensorflow", "grpc", "protocol"]),
    ("tls", &[]),
    ("gateway", &["core", "grpc", "protocol", "tls"]),
    ("api", &["core"]),
    ("bench", &["core", "engine", "protocol"]),
    ("postgres-local", &[]),
    (
        "control-plane",
        &["api", "core", "planner", "protocol", "runtime", "runtime-kube", "runtime-local", "store", "tls"],
    ),
    ("xtask", &["api", "core", "postgres-local"]),
];

/// Crates that exist for tests.
const SEES_ALL: &[&str] = &["fuzz-targets", "test-support", "tests"];

/// Crates that only compute: nothing of `IMPURE` may be anywhere in what they are built from.
const PURE: &[&str] = &["core", "planner", "simulation"];
const IMPURE: &[&str] = &["axum", "hyper", "kube", "reqwest", "sqlx", "tokio"];

/// Libraries that only some crates may name as a dependency.
const CONFINED: &[(&[&str], &[&str])] = &[
    (&["sqlx"], &["store", "test-support", "tests"]),
    (&["kube", "k8s-openapi"], &["runtime-kube", "tests"]),
    (&["serde_yaml"], &["core"]),
];

/// The part of `cargo metadata` that the rules look at.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `None` is a normal dependency.
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDep>,
}

#[derive(Debug, Deserialize)]
struct NodeDep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Debug, Deserialize)]
struct DepKind {
    kind: Option<String>,
}

/// All violations, in words.
pub(super) fn problems(metadata: &Metadata) -> Vec<String> {
    let members: Vec<&Package> =
        metadata.packages.iter().filter(|package| metadata.workspace_members.contains(&package.id)).collect();
    let names: BTreeSet<&str> = members.iter().map(|package| short(&package.name)).collect();
    let mut problems: Vec<String> = members
        .iter()
        .flat_map(|package| imports(package, &names).into_iter().chain(confinement(package)))
        .chain(members.iter().flat_map(|package| purity(package, metadata)))
        .collect();
    problems.sort();
    problems.dedup();
    problems
}

fn short(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

fn imports(package: &Package, members: &BTreeSet<&str>) -> Vec<String> {
    let name = short(&package.name);
    if SEES_ALL.contains(&name) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(of, _)| *of == name) else {
        return vec![format!("{name} has no rule in xtask/src/lint/direction.rs")];
    };
    let ours = |dependency: &&Dependency| {
        (dependency.name.starts_with(PREFIX) || dependency.name == "xtask") && members.contains(short(&dependency.name))
    };
    let refused = |dependency: &&Dependency| {
        let on = short(&dependency.name);
        let is_test_help = dependency.kind.as_deref() == Some("dev") && on == "test-support";
        !is_test_help && !allowed.contains(&on)
    };
    let found = package.dependencies.iter().filter(ours).filter(refused);
    found.map(|dependency| format!("{name} must not depend on {}", short(&dependency.name))).collect()
}

fn confinement(package: &Package) -> Vec<String> {
    let name = short(&package.name);
    let mut found = Vec::new();
    for dependency in &package.dependencies {
        for (libraries, allowed) in CONFINED {
            if libraries.contains(&dependency.name.as_str()) && !allowed.contains(&name) {
                found.push(format!("{name} must not depend on {}: it belongs in {}", dependency.name, allowed[0]));
            }
        }
    }
    found
}

/// Walks everything that the package is built from, its own dev-dependencies aside.
fn purity(package: &Package, metadata: &Metadata) -> Vec<String> {
    let name = short(&package.name);
    if !PURE.contains(&name) {
        return Vec::new();
    }
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let package_names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
    // Each package that was reached, with the one that led there.
    let mut reached: BTreeMap<&str, Option<&str>> = BTreeMap::from([(package.id.as_str(), None)]);
    let mut queue = vec![package.id.as_str()];
    let mut found = Vec::new();
    while let Some(id) = queue.pop() {
        let reached_name = package_names.get(id).copied().unwrap_or(id);
        if IMPURE.contains(&reached_name) {
            let path: Vec<&str> = std::iter::successors(Some(id), |id| reached.get(id).copied().flatten())
                .map(|id| package_names.get(id).copied().map_or(id, short))
                .collect();
            found.push(format!("{name} must not need {reached_name} (needed by {})", path[1..].join(", by ")));
            continue;
        }
        let deps = nodes.get(id).map(|node| node.deps.as_slice()).unwrap_or_default();
        for dep in deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))) {
            if !reached.contains_key(dep.pkg.as_str()) {
                reached.insert(&dep.pkg, Some(id));
                queue.push(&dep.pkg);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What a package depends on, and as what kind.
    type Deps<'a> = &'a [(&'a str, Option<&'a str>)];

    /// A workspace from `(package, [(dependency, kind)])`; packages named `modelyard-*` or `xtask` are its members.
    fn workspace(packages: &[(&str, Deps<'_>)]) -> Metadata {
        let is_member = |name: &str| name.starts_with(PREFIX) || name == "xtask";
        let of = |shape: &dyn Fn(&str, Deps<'_>) -> Value| -> Vec<Value> {
            packages.iter().map(|(name, deps)| shape(name, deps)).collect()
        };
        let metadata = json!({
            "workspace_members": packages.iter().map(|(name, _)| *name).filter(|name| is_member(name)).collect::<Vec<_>>(),
            "packages": of(&|name, deps| json!({
                "id": name, "name": name,
                "dependencies": deps.iter().map(|(on, kind)| json!({"name": on, "kind": kind})).collect::<Vec<_>>(),
            })),
            "resolve": {"nodes": of(&|name, deps| json!({
                "id": name,
                "deps": deps.iter().map(|(on, kind)| json!({"pkg": on, "dep_kinds": [{"kind": kind}]})).collect::<Vec<_>>(),
            }))},
        });
        serde_json::from_value(metadata).unwrap()
    }

    #[test]
    fn what_the_rules_allow_passes() {
        let metadata = workspace(&[
            ("modelyard-core", &[("serde", None), ("serde_yaml", None)]),
            ("modelyard-planner", &[("modelyard-core", None), ("tokio", Some("dev"))]),
            ("modelyard-store", &[("modelyard-core", None), ("sqlx", None), ("modelyard-test-support", Some("dev"))]),
            ("modelyard-test-support", &[("modelyard-store", None), ("sqlx", None)]),
            ("serde", &[("tokio", Some("dev"))]),
            ("serde_yaml", &[]),
            ("sqlx", &[("tokio", None)]),
            ("tokio", &[]),
        ]);
        assert_eq!(problems(&metadata), Vec::<String>::new());
    }

    #[test]
    fn a_dependency_against_the_direction_is_named() {
        let metadata = workspace(&[
            ("modelyard-core", &[]),
            ("modelyard-store", &[("modelyard-core", None)]),
            ("modelyard-planner", &[("modelyard-core", None), ("modelyard-store", Some("build"))]),
            ("modelyard-gateway", &[("modelyard-test-support", None)]),
            ("modelyard-test-support", &[]),
        ]);
        let expected = ["gateway must not depend on test-support", "planner must not depend on store"];
        assert_eq!(problems(&metadata)[..2], expected);
    }

    #[test]
    fn impurity_is_found_through_others_and_the_way_is_shown() {
        let metadata = workspace(&[
            ("modelyard-core", &[("innocent", None)]),
            ("innocent", &[("client", None)]),
            ("client", &[("tokio", None)]),
            ("tokio", &[]),
        ]);
        assert_eq!(problems(&metadata), ["core must not need tokio (needed by client, by innocent, by core)"]);
    }

    #[test]
    fn confined_libraries_stay_where_they_belong() {
        let metadata = workspace(&[
            ("modelyard-gateway", &[("sqlx", Some("dev"))]),
            ("modelyard-api", &[("serde_yaml", None), ("kube", None)]),
        ]);
        let expected = [
            "api must not depend on kube: it belongs in runtime-kube",
            "api must not depend on serde_yaml: it belongs in core",
            "gateway must not depend on sqlx: it belongs in store",
        ];
        assert_eq!(problems(&metadata), expected);
    }

    #[test]
    fn a_new_crate_needs_a_rule() {
        let metadata = workspace(&[("modelyard-novelty", &[])]);
        assert_eq!(problems(&metadata), ["novelty has no rule in xtask/src/lint/direction.rs"]);
    }
}
