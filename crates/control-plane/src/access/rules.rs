//! The one table of what each role may do. Whatever is not in it, nobody may.

use modelyard_core::Role;

/// Routes that answer to everyone: probes come from those who have no token.
pub const OPEN: &[&str] = &["/healthz", "/readyz"];

const VIEW: &[Role] = &[Role::Viewer, Role::Operator, Role::Admin];
const OPERATE: &[Role] = &[Role::Operator, Role::Admin];
const ADMINISTER: &[Role] = &[Role::Admin];
/// Workers hold a model's bytes anyway; they need nothing else.
const FETCH: &[Role] = &[Role::Viewer, Role::Operator, Role::Admin, Role::Worker];
const ROUTE: &[Role] = &[Role::Gateway];

/// Method, route, and who may. `HEAD` goes with `GET` where it has no line of its own.
const RULES: &[(&str, &str, &[Role])] = &[
    ("POST", "/api/v1/apply", OPERATE),
    ("PUT", "/api/v1/artifacts", OPERATE),
    ("GET", "/api/v1/artifacts/{sha256}", FETCH),
    ("HEAD", "/api/v1/artifacts/{sha256}", FETCH),
    ("GET", "/api/v1/models", VIEW),
    ("GET", "/api/v1/models/{m}", VIEW),
    ("DELETE", "/api/v1/models/{m}", OPERATE),
    ("GET", "/api/v1/models/{m}/versions", VIEW),
    ("GET", "/api/v1/models/{m}/versions/{v}", VIEW),
    ("DELETE", "/api/v1/models/{m}/versions/{v}", OPERATE),
    ("PUT", "/api/v1/models/{m}/aliases/{a}", OPERATE),
    ("DELETE", "/api/v1/models/{m}/aliases/{a}", OPERATE),
    ("GET", "/api/v1/deployments", VIEW),
    ("GET", "/api/v1/deployments/{d}", VIEW),
    ("DELETE", "/api/v1/deployments/{d}", OPERATE),
    ("GET", "/api/v1/deployments/{d}/revisions", VIEW),
    ("GET", "/api/v1/deployments/{d}/revisions/{n}", VIEW),
    ("POST", "/api/v1/deployments/{d}/rollback", OPERATE),
    ("POST", "/api/v1/deployments/{d}/pause", OPERATE),
    ("POST", "/api/v1/deployments/{d}/resume", OPERATE),
    ("POST", "/api/v1/deployments/{d}/promote", OPERATE),
    ("POST", "/api/v1/deployments/{d}/abort", OPERATE),
    ("GET", "/api/v1/deployments/{d}/rollout", VIEW),
    ("GET", "/api/v1/deployments/{d}/served", VIEW),
    ("POST", "/api/v1/deployments/{d}/outcomes", OPERATE),
    ("GET", "/api/v1/deployments/{d}/experiment", VIEW),
    ("POST", "/api/v1/deployments/{d}/experiment/conclude", OPERATE),
    ("GET", "/api/v1/events", VIEW),
    ("GET", "/api/v1/events/chain", VIEW),
    ("GET", "/api/v1/events/head", VIEW),
    ("GET", "/api/v1/tokens", ADMINISTER),
    ("POST", "/api/v1/tokens", ADMINISTER),
    ("DELETE", "/api/v1/tokens/{id}", ADMINISTER),
    ("GET", "/api/v1/openapi.json", VIEW),
    ("GET", "/metrics", VIEW),
    ("GET", "/internal/v1/routes", ROUTE),
    ("POST", "/internal/v1/evidence", ROUTE),
];

/// The roles that may `method` the route `path` (its template).
pub fn allowed(method: &str, path: &str) -> &'static [Role] {
    let find = |method: &str| RULES.iter().find(|(m, p, _)| *m == method && *p == path).map(|(_, _, roles)| *roles);
    let as_get = || if method == "HEAD" { find("GET") } else { None };
    find(method).or_else(as_get).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method and path of the OpenAPI document.
    fn operations() -> Vec<(String, String)> {
        let document = serde_json::to_value(crate::http::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let of = |(path, item): (&String, &serde_json::Value)| -> Vec<_> {
            item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())).collect()
        };
        paths.iter().flat_map(of).collect()
    }

    #[test]
    fn every_operation_has_a_rule_and_every_rule_an_operation() {
        let operations = operations();
        assert!(operations.len() > 25, "{operations:?}");
        for (method, path) in &operations {
            assert!(!allowed(method, path).is_empty(), "{method} {path} needs a line in this table");
        }
        let undocumented = ["/api/v1/openapi.json", "/metrics", "/internal/v1/routes", "/internal/v1/evidence"];
        for (method, path, _) in RULES {
            let known = operations.contains(&((*method).to_owned(), (*path).to_owned()));
            assert!(known || undocumented.contains(path), "there is no {method} {path}");
        }
    }

    #[test]
    fn each_role_may_do_what_the_one_below_may_and_machines_only_their_own() {
        for (method, path, roles) in RULES {
            let may = |role| roles.contains(&role);
            assert!(may(Role::Operator) || !may(Role::Viewer), "{method} {path}");
            assert!(may(Role::Admin) || !may(Role::Operator), "{method} {path}");
            assert_eq!(may(Role::Gateway), path.starts_with("/internal/"), "{method} {path}");
            assert_eq!(may(Role::Worker), *path == "/api/v1/artifacts/{sha256}", "{method} {path}");
            let reads = ["GET", "HEAD"].contains(method) && !path.contains("/tokens") && !path.starts_with("/internal");
            assert_eq!(may(Role::Viewer), reads, "{method} {path}");
        }
    }

    #[test]
    fn what_has_no_rule_nobody_may() {
        assert!(allowed("PATCH", "/api/v1/models").is_empty());
        assert!(allowed("GET", "/api/v1/new").is_empty());
        assert_eq!(allowed("HEAD", "/api/v1/models"), VIEW);
    }
}
