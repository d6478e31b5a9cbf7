//! The files of `deploy/` and `docker-compose.yml` fit together and fit the node: names, ports, selectors, secrets, and
//! every setting in an environment. `tests/compose.sh` starts the compose file; Kubernetes' manifests are only read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Seconds that a node takes to stop, at most: the default of `shutdown.deadline_s`.
const SHUTDOWN: u64 = 20;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Value {
    serde_saphyr::from_str(&read("docker-compose.yml")).expect("YAML")
}

/// Every object of the manifests that the kustomization lists.
fn objects() -> Vec<Value> {
    let kustomization: Value = serde_saphyr::from_str(&read("deploy/kustomization.yaml")).expect("YAML");
    let files = strings(&kustomization["resources"]);
    let mut there: Vec<String> = fs::read_dir(root().join("deploy/kubernetes"))
        .expect("a directory")
        .map(|entry| format!("kubernetes/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .filter(|name| !name.contains(".example."))
        .collect();
    there.sort();
    let mut listed = files.clone();
    listed.sort();
    assert_eq!(there, listed, "deploy/kustomization.yaml lists what is in deploy/kubernetes");
    let parse =
        |file: &String| serde_saphyr::from_multiple::<Value>(&read(Path::new("deploy").join(file))).expect("YAML");
    files.iter().flat_map(parse).collect()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|item| item.as_str().expect("a string").to_owned()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn workloads(objects: &[Value]) -> Vec<&Value> {
    objects.iter().filter(|object| !object["spec"]["template"].is_null()).collect()
}

fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

/// The one workload whose pods have these labels.
fn selected<'a>(objects: &'a [Value], labels: &Value, by: &str) -> &'a Value {
    let has = |workload: &&&Value| {
        let own = &workload["spec"]["template"]["metadata"]["labels"];
        labels.as_object().expect("labels").iter().all(|(name, value)| own[name] == *value)
    };
    let all = workloads(objects);
    let found: Vec<&&Value> = all.iter().filter(has).collect();
    assert_eq!(found.len(), 1, "{by} selects one workload: {labels}");
    found[0]
}

/// Runs `conclave check-config` with these variables; what they refer to is some secret.
fn check_config(environment: &BTreeMap<String, String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command.arg("check-config").env_clear().envs(environment);
    let output = command.output().expect("the server's binary");
    assert!(output.status.success(), "{environment:#?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// `${NAME:-default}`, `${NAME:?why}` and `$(NAME)` with the default, or else with a secret.
fn substituted(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        let close = if after.starts_with('{') { '}' } else { ')' };
        let (inside, left) = after[1..].split_once(close).unwrap_or_else(|| panic!("no end of a variable: {text}"));
        result.push_str(before);
        result.push_str(inside.split_once(":-").map_or("0123456789abcdef0123456789abcdef", |(_, default)| default));
        rest = left;
    }
    result + rest
}

/// The settings that the image itself has.
fn of_image() -> BTreeMap<String, String> {
    let dockerfile = read("deploy/Dockerfile");
    let words = dockerfile.split_whitespace().filter(|word| word.starts_with("CONCLAVE__"));
    let found: BTreeMap<String, String> = words
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(found.len() > 3, "the image's settings were read: {found:?}");
    found
}

#[test]
fn a_node_takes_the_environment_that_compose_gives_it() {
    let mut environment = of_image();
    for (name, value) in compose()["services"]["node"]["environment"].as_object().expect("variables") {
        environment.insert(name.clone(), substituted(value.as_str().expect("a string")));
    }
    check_config(&environment);
}

#[test]
fn a_node_takes_the_environment_that_kubernetes_gives_it() {
    let objects = objects();
    let node = selected(&objects, &json!({"app": "conclave-node"}), "this test");
    let mut environment = of_image();
    for variable in container(node)["env"].as_array().expect("variables") {
        let value = variable["value"].as_str().unwrap_or("$(A_SECRET)");
        environment.insert(variable["name"].as_str().expect("a name").to_owned(), substituted(value));
    }
    check_config(&environment);
}

#[test]
fn secrets_have_the_same_names_everywhere() {
    let example = read(".env.example");
    let names: Vec<&str> = example.lines().filter_map(|line| line.strip_suffix('=')).collect();
    assert!(names.len() > 2, "{names:?}");
    let compose = read("docker-compose.yml");
    for name in &names {
        assert!(compose.contains(&format!("${{{name}:?")), "docker-compose.yml wants {name}");
    }
    let template: Value = serde_saphyr::from_str(&read("deploy/kubernetes/secret.example.yaml")).expect("YAML");
    for object in &workloads(&objects()) {
        for variable in container(object)["env"].as_array().into_iter().flatten() {
            let wanted = &variable["valueFrom"]["secretKeyRef"];
            if let Some(key) = wanted["key"].as_str() {
                assert_eq!(wanted["name"], template["metadata"]["name"]);
                assert!(names.contains(&key), ".env.example has {key}");
                assert!(template["stringData"][key].is_string(), "secret.example.yaml has {key}");
            }
        }
    }
}

#[test]
fn a_node_has_more_time_to_stop_than_it_takes() {
    let compose = compose();
    let grace = compose["services"]["node"]["stop_grace_period"].as_str().and_then(|text| text.strip_suffix('s'));
    assert!(grace.and_then(|text| text.parse::<u64>().ok()).is_some_and(|grace| grace > SHUTDOWN));
    let objects = objects();
    let node = selected(&objects, &json!({"app": "conclave-node"}), "this test");
    let sleep = &container(node)["lifecycle"]["preStop"]["exec"]["command"][1];
    let sleep: u64 = sleep.as_str().and_then(|text| text.parse().ok()).expect("seconds");
    let grace = node["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
    assert!(grace.is_some_and(|grace| grace > SHUTDOWN + sleep));
}

#[test]
fn only_the_balancer_and_grafana_are_reached_from_outside_and_each_dependency_has_its_network() {
    let compose = compose();
    let services = compose["services"].as_object().expect("services");
    let published: Vec<&String> =
        services.iter().filter(|(_, it)| !it["ports"].is_null()).map(|(name, _)| name).collect();
    assert_eq!(published, ["balancer", "grafana"]);
    let on = |network: &str| -> Vec<&str> {
        let member = |it: &Value| match &it["networks"] {
            Value::Array(list) => list.contains(&json!(network)),
            other => !other[network].is_null(),
        };
        services.iter().filter(|(_, it)| member(it)).map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!(on("bus"), ["node", "redis"]);
    assert_eq!(on("store"), ["node", "postgres"]);
    assert_eq!(on("front"), ["balancer", "node"]);
}

#[test]
fn kubernetes_selectors_ports_and_volumes_fit_together() {
    let objects = objects();
    for workload in workloads(&objects) {
        let name = &workload["metadata"]["name"];
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(
            workload["spec"]["selector"]["matchLabels"], workload["spec"]["template"]["metadata"]["labels"],
            "{name}"
        );
        assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1), "{name}");
        let container = container(workload);
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]), "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        for probe in ["readinessProbe", "livenessProbe"] {
            for how in ["httpGet", "tcpSocket"] {
                let port = &container[probe][how]["port"];
                assert!(port.is_null() || has_port(workload, port), "{name} has no port {port}");
            }
        }
        let claims = workload["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
        let volumes: Vec<&Value> = (pod["volumes"].as_array().into_iter().flatten().map(|volume| &volume["name"]))
            .chain(claims.map(|claim| &claim["metadata"]["name"]))
            .collect();
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            assert!(volumes.contains(&&mount["name"]), "{name} has no volume {}", mount["name"]);
        }
    }
    for service in of_kind(&objects, "Service") {
        let workload = selected(&objects, &service["spec"]["selector"], "a service");
        for port in service["spec"]["ports"].as_array().expect("ports") {
            assert!(has_port(workload, &port["targetPort"]), "{service}");
        }
    }
    for budget in of_kind(&objects, "PodDisruptionBudget") {
        selected(&objects, &budget["spec"]["selector"]["matchLabels"], "a disruption budget");
    }
}

#[test]
fn kubernetes_network_policies_name_pods_and_ports_that_are_there() {
    let objects = objects();
    let policies = of_kind(&objects, "NetworkPolicy");
    assert!(policies.iter().any(|it| it["spec"]["podSelector"] == json!({})), "nobody may talk unless it is said");
    for policy in policies.iter().filter(|it| it["spec"]["podSelector"] != json!({})) {
        let own = selected(&objects, &policy["spec"]["podSelector"]["matchLabels"], "a network policy");
        for rule in policy["spec"]["ingress"].as_array().into_iter().flatten() {
            for port in rule["ports"].as_array().expect("ports") {
                assert!(has_port(own, &port["port"]), "{policy}");
            }
            for from in rule["from"].as_array().into_iter().flatten() {
                if let Some(labels) = from["podSelector"].get("matchLabels") {
                    selected(&objects, labels, "a network policy");
                }
            }
        }
        for rule in policy["spec"]["egress"].as_array().into_iter().flatten() {
            let to = selected(&objects, &rule["to"][0]["podSelector"]["matchLabels"], "a network policy");
            for port in rule["ports"].as_array().expect("ports") {
                assert!(has_port(to, &port["port"]), "{policy}");
            }
        }
    }
}

#[test]
fn hosts_in_settings_are_services_and_images_are_the_same_everywhere() {
    let compose = compose();
    let objects = objects();
    let services: Vec<&Value> = of_kind(&objects, "Service").into_iter().map(|it| &it["metadata"]["name"]).collect();
    let mut hosts = 0;
    for workload in workloads(&objects) {
        for variable in container(workload)["env"].as_array().into_iter().flatten() {
            if let Some((_, rest)) = variable["value"].as_str().and_then(|value| value.split_once('@')) {
                let host = rest.split(['/', ':']).next().expect("a host");
                assert!(services.contains(&&json!(host)) && !compose["services"][host].is_null(), "{host}");
                hosts += 1;
            }
        }
        let (image, name) = (&container(workload)["image"], workload["metadata"]["name"].as_str().expect("a name"));
        let in_compose = compose["services"][name]["image"].as_str().unwrap_or_else(|| panic!("compose has no {name}"));
        assert_eq!(*image, substituted(in_compose), "{name}");
    }
    assert_eq!(hosts, 2, "PostgreSQL's and Redis's");
    assert!(
        services.contains(&&json!("node")) && read("deploy/haproxy/haproxy.cfg").contains("\"${NODES-node}:8080\"")
    );
}

/// Whether the workload's container has this port, by name or number.
fn has_port(workload: &Value, port: &Value) -> bool {
    let ports = container(workload)["ports"].as_array().expect("ports");
    ports.iter().any(|own| own["name"] == *port || own["containerPort"] == *port)
}
