//! Neighbours that keep the machine busy: pods with a busy loop each, which ask for much CPU time and get it.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::{
    Outcome,
    scenario::Scenario,
    waiting::{ensure, eventually},
};

/// No busy loop outlives its test by long.
const SECONDS: &str = "900";

/// Busy pods in a scenario's namespace, which end with it at the latest.
pub struct BusyPods {
    pods: Api<Pod>,
    names: Vec<String>,
}

impl BusyPods {
    /// Starts so many pods that ask for 400m each, and waits until they run.
    ///
    /// # Errors
    /// If they don't.
    pub async fn start(scenario: &Scenario, image: &str, number: usize) -> Outcome<Self> {
        let busy = Self {
            pods: scenario.api(),
            names: (0..number).map(|number| format!("busy-{number}")).collect(),
        };
        for name in &busy.names {
            let pod = serde_json::from_value(json!({
                "metadata": {"name": name},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "busy", "image": image, "imagePullPolicy": "IfNotPresent",
                        "command": ["/bin/yardstick", "burn", SECONDS],
                        "resources": {"requests": {"cpu": "400m"}},
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    }],
                },
            }))?;
            busy.pods.create(&PostParams::default(), &pod).await?;
        }
        for name in &busy.names {
            eventually(format!("pod {name} to run"), async || {
                let phase = busy.pods.get(name).await?.status.and_then(|status| status.phase);
                ensure(phase.as_deref() == Some("Running"), || format!("{phase:?}"))
            })
            .await?;
        }
        Ok(busy)
    }

    /// Ends them, and waits until they are gone.
    ///
    /// # Errors
    /// If they don't go.
    pub async fn end(self) -> Outcome {
        for name in &self.names {
            self.pods
                .delete(name, &DeleteParams::default().grace_period(0))
                .await?;
        }
        eventually("the busy pods to go", async || {
            for name in &self.names {
                let found = self.pods.get_opt(name).await?;
                ensure(found.is_none(), || format!("{name} is still there"))?;
            }
            Ok(())
        })
        .await
    }
}
