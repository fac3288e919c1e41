//! Manifests as people write them, right and wrong.

use super::*;

const LINEAR: &str = r#"apiVersion: modelyard.dev/v1
kind: Model
metadata: {name: linear, labels: {team: pricing, "modelyard.dev/tier": "1"}}
spec: {description: "y = x·w + b", owner: pricing@example.com}
---
apiVersion: modelyard.dev/v1
kind: ModelVersion
metadata: {name: linear-2}
spec:
  model: linear
  version: "2"
  format: onnx
  artifact:
    uri: linear-2.onnx
  metadata: {trainedOn: "2026-11-01", auc: "0.91"}
---
apiVersion: modelyard.dev/v1
kind: ModelDeployment
metadata: {name: linear}
spec:
  model: linear
  version: "2"
  replicas: 2
  resources: {cpu: 250m, memory: 128Mi}
  batching: {maxBatchSize: 32, maxDelay: 2ms}
  rollbackWindow: 10m
  strategy:
    canary:
      steps: [{weight: 10, hold: 30s}, {weight: 50, hold: 1m}]
      analysis: {minRequests: 100, maxErrorRate: 0.01, maxLatencyP99: 50ms, maxDisagreement: 0.02}
      onInconclusive: hold
"#;

#[test]
fn the_manifest_of_the_contract_is_read() {
    let documents = parse(LINEAR).unwrap();
    assert_eq!(
        documents.iter().map(|d| d.resource.kind()).collect::<Vec<_>>(),
        ["Model", "ModelVersion", "ModelDeployment"]
    );
    let Resource::ModelDeployment(deployment) = &documents[2].resource else { panic!() };
    insta::assert_yaml_snapshot!(deployment.spec);
    let json = serde_json::to_string(&deployment.spec).unwrap();
    assert_eq!(serde_json::from_str::<DeploymentSpec>(&json).unwrap(), deployment.spec, "the stored form reads back");
}

#[test]
fn json_documents_are_read_too() {
    let text = r#"{"apiVersion": "modelyard.dev/v1", "kind": "Model", "metadata": {"name": "m"}}"#;
    assert_eq!(parse(text).unwrap()[0].resource.name(), "m");
}

#[test]
fn every_problem_of_every_document_is_reported_with_line_and_path() {
    let text = r#"apiVersion: modelyard.dev/v2
kind: ModelDeployment
metadata: {name: Linear}
spec:
  model: linear
  version: 2
  replica: 2
  strategy:
    canary:
      steps:
        - weight: 10
          hold: 30 s
        - weight: 5.001
          hold: 1m
      analysis:
        maxErrorRate: 2
---
kind: ModelVersion
apiVersion: modelyard.dev/v1
metadata:
  name: v
  labels:
    a.b/c: 3
spec:
  model: linear
  format: pickle
  artifact: {uri: /abs.onnx, sha256: xyz}
---
kind: Modell
apiVersion: modelyard.dev/v1
"#;
    let problems = parse(text).unwrap_err();
    insta::assert_snapshot!(problems.iter().map(|p| format!("{p}\n")).collect::<String>());
}

#[test]
fn a_syntax_error_names_its_line() {
    let problems = parse("kind: Model\nmetadata: [oops\n").unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].line.is_some_and(|l| l >= 2), "{problems:?}");
}

#[test]
fn a_duplicate_key_is_refused() {
    let problems = parse("kind: Model\nkind: Model\n").unwrap_err();
    assert!(problems[0].message.contains("duplicate"), "{problems:?}");
}

#[test]
fn strategies_are_one_of_several() {
    let of = |strategy: &str| {
        parse(&format!(
            "apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: d}}\nspec:\n  model: m\n  version: \"1\"\n  strategy: {strategy}\n"
        ))
    };
    assert!(of("{rolling: {}}").is_ok());
    assert!(of("{rolling: }").is_ok());
    for (bad, word) in [
        ("{}", "name one strategy"),
        ("{rolling: {}, canary: {steps: [{weight: 1}]}}", "not several"),
        ("{abTest: {}}", "two variants at least"),
        ("{bluegreen: {}}", "unknown field"),
        ("{canary: {steps: []}}", "at least one step"),
        ("{canary: {steps: [{weight: 50}, {weight: 10}]}}", "more weight"),
        ("{canary: {steps: [{weight: 0}]}}", "more than 0 %"),
    ] {
        let problems = of(bad).unwrap_err();
        assert!(problems.iter().any(|p| p.message.contains(word)), "{bad}: {problems:?}");
    }
}

#[test]
fn lines_are_found_by_path() {
    let at = |path| line_of(LINEAR, 2, path);
    assert_eq!(at(""), Some(17));
    assert_eq!(at("spec.version"), Some(22));
    assert_eq!(at("spec.strategy.canary.steps[1].weight"), Some(29));
    assert_eq!(at("spec.nothing"), Some(20));
    assert_eq!(line_of(LINEAR, 0, r#"metadata.labels."modelyard.dev/tier""#), Some(3));
}

#[test]
fn an_engine_is_named_or_described() {
    let of = |engine: &str| {
        parse(&format!(
            "apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: d}}\nspec:\n  model: m\n  version: \"1\"\n  engine: {engine}\n"
        ))
    };
    let read = |engine: &str| match of(engine).unwrap().remove(0).resource {
        Resource::ModelDeployment(deployment) => {
            let json = serde_json::to_string(&deployment.spec).unwrap();
            assert_eq!(serde_json::from_str::<DeploymentSpec>(&json).unwrap(), deployment.spec);
            deployment.spec.engine
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(read("rten"), read("{name: rten}"));
    let all =
        "{name: onnxruntime, threads: {intra: 2, inter: 1}, optimization: basic, providers: [cuda, cpu], warmUp: 3}";
    assert_eq!(
        serde_json::json!(read(all)),
        serde_json::json!({
            "name": "onnxruntime", "threads": {"intra": 2, "inter": 1}, "optimization": "basic",
            "providers": ["cuda", "cpu"], "warmUp": 3,
        })
    );
    for (bad, problem) in [
        ("tract", "7: spec.engine: "),
        ("{name: tract}", "7: spec.engine.name: "),
        ("3", "7: spec.engine: must be a string"),
        ("{thread: {intra: 2}}", "7: spec.engine.thread: unknown field; this mapping may have: name, optimization"),
        ("{threads: {intra: 0}}", "7: spec.engine.threads.intra: must be a whole number from 1 to 1024"),
        ("{name: dense, threads: {intra: 2}}", "7: spec.engine.threads: the engine dense computes a request by one"),
        ("{name: rten, threads: {inter: 2}}", "7: spec.engine.threads.inter: is for onnxruntime"),
        ("{name: rten, optimization: all}", "7: spec.engine.optimization: is for onnxruntime"),
        ("{optimization: most}", "7: spec.engine.optimization: "),
        ("{providers: cuda}", "7: spec.engine.providers: must be a list"),
        ("{providers: [cpu, tpu]}", "7: spec.engine.providers[1]: "),
        ("{providers: [cuda, cuda]}", "7: spec.engine.providers: one of them is named twice"),
        ("{name: onnx-ml, providers: [cuda]}", "7: spec.engine.providers: is for onnxruntime"),
        ("{warmUp: -1}", "7: spec.engine.warmUp: must be a whole number from 0"),
    ] {
        let problems: Vec<String> = of(bad).unwrap_err().iter().map(ToString::to_string).collect();
        assert!(problems.iter().any(|p| p.starts_with(problem)), "{bad}: {problems:?}");
    }
}

fn deployment(spec: &str) -> String {
    format!("apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: linear}}\nspec:\n{spec}")
}

#[test]
fn what_only_a_cluster_heeds_is_read_and_checked() {
    let text = deployment(
        r#"  model: linear
  version: "2"
  resources: {cpu: 250m, memory: 128Mi, gpu: 1}
  nodeSelector: {disk: ssd}
  tolerations:
    - {key: gpu, operator: Exists, effect: NoSchedule}
    - {key: a, value: b, effect: NoExecute, tolerationSeconds: 30}
  autoscaling: {maxReplicas: 5}
  disruptionBudget: {maxUnavailable: 1}
  strategy: {rolling: {maxSurge: 0}}
"#,
    );
    let documents = parse(&text).unwrap();
    let Resource::ModelDeployment(read) = &documents[0].resource else { panic!() };
    insta::assert_yaml_snapshot!(read.spec);
    let json = serde_json::to_string(&read.spec).unwrap();
    assert_eq!(serde_json::from_str::<DeploymentSpec>(&json).unwrap(), read.spec, "the stored form reads back");

    let text = deployment(
        r#"  model: linear
  version: "2"
  tolerations: [{value: b}, {operator: Exists, value: b, effect: Never, tolerationSeconds: 1}]
  autoscaling: {minReplicas: 5, maxReplicas: 2}
  disruptionBudget: {}
  strategy: {rolling: {maxSurge: -1}}
"#,
    );
    let problems: Vec<_> = parse(&text).unwrap_err().iter().map(ToString::to_string).collect();
    insta::assert_yaml_snapshot!(problems);
}

#[test]
fn resources_are_quantities_that_a_pod_can_be_given() {
    let problems = |resources: &str| {
        let text = deployment(&format!("  model: linear\n  version: \"2\"\n  resources: {resources}\n"));
        let problems = parse(&text).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for fine in [r#"{cpu: "0.5", memory: "1e9"}"#, r#"{cpu: "1", memory: 2Ei}"#, r#"{cpu: 1m, memory: "1"}"#] {
        assert_eq!(problems(fine), "", "{fine}");
    }
    let wrong = [
        (r#"{cpu: "0.0001"}"#, "`0.0001` is less than 1m"),
        ("{cpu: 100u}", "`100u` is less than 1m"),
        ("{memory: 128m}", "`128m` is less than one byte"),
        ("{memory: 1GB}", "`1GB` is not a valid quantity: use a number with an optional unit"),
        (r#"{cpu: "-1"}"#, "`-1` is not a valid quantity"),
    ];
    for (resources, problem) in wrong {
        assert!(problems(resources).contains(problem), "{resources}: {}", problems(resources));
    }
}

#[test]
fn a_line_is_found_the_same_way_in_any_document() {
    let text = format!("# first\n{LINEAR}--- {{a: [1,\n  2]}}\n---\n\n  deep:\n    er: 1\n...\n---\nlast: {{x: 1}}\n");
    let places = places(&text);
    assert_eq!(places.len(), 6);
    let paths =
        ["", "kind", "metadata.name", "spec.strategy.canary.steps[1].hold", "a[1]", "deep.er", "last.x", "none"];
    for (index, place) in places.iter().enumerate() {
        for path in paths {
            assert_eq!(place.line_of(path), line_of(&text, index, path), "document {index}, {path}");
        }
    }
}

fn strategy(text: &str) -> Result<crate::Strategy, Vec<String>> {
    let head = "apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {name: m}\n";
    let text = format!("{head}spec: {{model: m, version: \"2\", strategy: {text}}}\n");
    match parse(&text) {
        Ok(documents) => match documents.into_iter().next().unwrap().resource {
            Resource::ModelDeployment(deployment) => Ok(deployment.spec.strategy),
            other => panic!("{other:?}"),
        },
        Err(problems) => Err(problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect()),
    }
}

#[test]
fn blue_green_and_shadow_are_read_with_their_defaults_and_read_back() {
    let read = [
        "{blueGreen: }",
        "{blueGreen: {hold: 5m, autoPromote: false, mirror: {share: 10}, analysis: {maxErrorRate: 0.01}}}",
        "{shadow: {hold: 10m, analysis: {maxDisagreement: 0.02}}}",
        "{shadow: {share: 25, examples: 20, redact: nothing, autoPromote: true, onInconclusive: rollback}}",
        "{shadow: {tolerance: {relative: 0.001}, outputs: {state: ignore, y: value}}}",
        "{canary: {shadow: {share: 50, hold: 1m}, steps: [{weight: 10, hold: 30s}]}}",
    ]
    .map(|text| strategy(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}")));
    for strategy in &read {
        let json = serde_json::to_value(strategy).unwrap();
        assert_eq!(serde_json::from_value::<crate::Strategy>(json).unwrap(), *strategy);
    }
    insta::assert_yaml_snapshot!(read);
}

#[test]
fn what_a_strategy_cannot_mean_is_refused_with_its_place() {
    let wrong = [
        "{}",
        "{blueGreen: {}, rolling: {}}",
        "{blueGreen: {maxSurge: 1, autoPromote: 3}}",
        "{shadow: }",
        "{shadow: {share: 0, examples: 1000000, outputs: {y: roughly}, tolerance: {absolute: -1}, redact: some}}",
        "{canary: {shadow: {}, maxSurge: 1, steps: [{weight: 10}]}}",
    ]
    .map(|text| strategy(text).unwrap_err());
    insta::assert_yaml_snapshot!(wrong);
}

fn tested(spec: &str) -> Result<DeploymentSpec, Vec<String>> {
    match parse(&deployment(spec)) {
        Ok(documents) => match documents.into_iter().next().unwrap().resource {
            Resource::ModelDeployment(deployment) => Ok(deployment.spec),
            other => panic!("{other:?}"),
        },
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn the_experiment_of_the_contract_is_read() {
    let text = r#"  model: linear
  strategy:
    abTest:
      variants:
        - {name: control, version: "1", weight: 50}
        - {name: treatment, version: "2", weight: 50}
      stickyBy: {header: x-user-id}
      match: [{header: x-cohort, equals: beta, variant: treatment}]
"#;
    let spec = tested(text).unwrap();
    assert_eq!(spec.version.to_string(), "1", "the first variant's, where none is given");
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<DeploymentSpec>(&json).unwrap(), spec, "the stored form reads back");
    insta::assert_yaml_snapshot!(spec);
}

#[test]
fn an_experiment_with_everything_is_read_and_read_back() {
    let text = r#"  model: linear
  version: "0"
  strategy:
    abTest:
      variants:
        - {name: old, version: "1", weight: 33.33}
        - {name: new, version: "2", weight: 33.33}
        - {name: other, model: dense, version: "1", weight: 33.34}
      stickyBy: {clientIp: {}}
      holdout: 5
      salt: spring
      metrics: [{name: revenue, perUnit: sum}, {name: latency, goal: decrease}]
      match: [{header: x-cohort, equals: "off", variant: holdout}]
"#;
    let spec = tested(text).unwrap();
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<DeploymentSpec>(&json).unwrap(), spec, "the stored form reads back");
    let yaml = crate::yaml::to_string(&spec).unwrap();
    let indented: String = yaml.lines().map(|line| format!("  {line}\n")).collect();
    assert_eq!(tested(&indented).unwrap(), spec, "what is printed can be applied");
    insta::assert_yaml_snapshot!(spec);
}

#[test]
fn what_an_experiment_cannot_mean_is_refused_with_its_place() {
    let two = r#"variants: [{name: a, version: "1", weight: 50}, {name: b, version: "2", weight: 50}]"#;
    let wrong = [
        r#"variants: [{name: a, version: "1", weight: 100}], stickyBy: {header: x}"#.to_owned(),
        r#"variants: [{name: a, version: "1", weight: 50}, {name: a, version: "2", weight: 40}], stickyBy: {}"#
            .to_owned(),
        r#"variants: [{name: canary, version: "alias:x", weight: 50}, {name: B, model: M, version: 2}]"#.to_owned(),
        format!(
            "{two}, stickyBy: {{header: x, cookie: y}}, holdout: 100, metrics: [{{name: a}}, {{name: a, goal: up}}]"
        ),
        format!("{two}, stickyBy: clientIp, match: [{{header: x, equals: y, variant: c}}, {{header: x}}], weights: 1"),
    ]
    .map(|test| tested(&format!("  model: m\n  strategy: {{abTest: {{{test}}}}}\n")).unwrap_err());
    insta::assert_yaml_snapshot!(wrong);
    for (version, word) in [("\"9\"", "nothing serves it"), ("alias:stable", "an alias moves"), ("9", "quote it")] {
        let strategy = format!("{{abTest: {{{two}, stickyBy: {{cookie: c}}}}}}");
        let problems = tested(&format!("  model: m\n  version: {version}\n  strategy: {strategy}\n")).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(word), "{version}: {problems:?}");
    }
}

/// Found by fuzzing: what an alias without an anchor leaves of its document was read as another, by which serde_yaml panics.
#[test]
fn an_unknown_alias_after_a_document_with_problems_is_reported_once() {
    let problems = parse("kind: Modle\n---\n- a\n---\na: &x [*y]\n").unwrap_err();
    let lines: Vec<_> = problems.iter().filter(|p| p.message.starts_with("not valid YAML")).map(|p| p.line).collect();
    assert_eq!(lines, [Some(5)], "{problems:?}");
}

/// Found by fuzzing: the lines of the first document were looked for in endlessly many after the second.
#[test]
fn a_syntax_error_after_a_document_with_problems_is_reported_once() {
    let text = "kind: Modle\n---\nspec: {a: \"b\nc: 1\n---\nkind: Model\n";
    let problems = parse(text).unwrap_err();
    let syntax: Vec<_> = problems.iter().filter(|p| p.message.starts_with("not valid YAML")).collect();
    assert_eq!(syntax.len(), 1, "{problems:?}");
    assert!(problems.iter().any(|p| p.path == "kind" && p.line == Some(1)), "{problems:?}");
    assert_eq!(places(text).len(), 1);
}

#[test]
fn what_is_missing_at_the_end_is_missing_on_the_last_line() {
    for text in ["kind: {a: b", "kind: Model\nspec: [a", "kind: Model\nspec: [a\n"] {
        let problems = parse(text).unwrap_err();
        assert_eq!(problems[0].line, Some(text.lines().count()), "{problems:?}");
    }
}

/// With a walk through the document for each, a file of a megabyte takes an hour.
#[test]
fn of_a_thousand_problems_the_first_have_their_line() {
    let fields: String = (0..1000).map(|i| format!("x{i}: 1\n")).collect();
    let problems =
        parse(&format!("apiVersion: modelyard.dev/v1\nkind: Model\nmetadata: {{name: m}}\n{fields}")).unwrap_err();
    let lines: Vec<Option<usize>> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!((lines.len(), lines[0], lines[99], lines[100]), (1000, Some(4), Some(103), None));
}

/// Found by fuzzing: lines were counted in two ways, and problems were on lines that no file has.
#[test]
fn lines_are_counted_as_yaml_counts_them() {
    for end in ["\n", "\r\n", "\r", "\u{85}", "\u{2028}"] {
        let text = ["kind: Model", "---", "kind: Model", "---", "kind: Modle", "spec: 1", "---", "a: [b"].join(end);
        let problems = parse(&text).unwrap_err();
        let line = |words: &str| problems.iter().find(|p| p.message.contains(words)).and_then(|p| p.line);
        assert_eq!((line("Modle"), line("not valid YAML")), (Some(5), Some(8)), "{end:?}: {problems:?}");
    }
}
