//! Graph algorithms on small indices. They iterate where depth follows the input, as a plan may be one long chain.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Returns the cycles: strongly connected components of more than one node, or of one node with an edge to itself.
#[must_use]
pub fn cyclic_components(nodes: usize, edges: impl Fn(usize) -> Vec<usize>) -> Vec<Vec<usize>> {
    let forward: Vec<Vec<usize>> = (0..nodes).map(edges).collect();
    let mut backward = vec![Vec::new(); nodes];
    for (from, targets) in forward.iter().enumerate() {
        for &to in targets {
            backward[to].push(from);
        }
    }
    // Kosaraju: order of finishing, then components on the reversed graph.
    let mut visited = vec![false; nodes];
    let mut finished = Vec::with_capacity(nodes);
    for start in 0..nodes {
        let mut stack = vec![(start, 0)];
        while let Some((node, next)) = stack.pop() {
            if next == 0 {
                if visited[node] {
                    continue;
                }
                visited[node] = true;
            }
            match forward[node].get(next) {
                Some(&to) => {
                    stack.push((node, next + 1));
                    if !visited[to] {
                        stack.push((to, 0));
                    }
                }
                None => finished.push(node),
            }
        }
    }
    let mut assigned = vec![false; nodes];
    let mut cyclic = Vec::new();
    for &start in finished.iter().rev() {
        if assigned[start] {
            continue;
        }
        assigned[start] = true;
        let mut component = vec![start];
        let mut at = 0;
        while let Some(&node) = component.get(at) {
            at += 1;
            for &to in &backward[node] {
                if !assigned[to] {
                    assigned[to] = true;
                    component.push(to);
                }
            }
        }
        component.sort_unstable();
        if component.len() > 1 || forward[start].contains(&start) {
            cyclic.push(component);
        }
    }
    cyclic.sort();
    cyclic
}

/// Returns a shortest cycle within a component, as nodes in the order of its edges, starting with its lowest node.
#[must_use]
pub fn shortest_cycle(component: &[usize], edges: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let within: BTreeSet<usize> = component.iter().copied().collect();
    for &start in component {
        let mut came_from = std::collections::BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for to in edges(node) {
                if to == start {
                    let mut path = vec![node];
                    let mut at = node;
                    while let Some(&before) = came_from.get(&at) {
                        path.push(before);
                        at = before;
                    }
                    path.reverse();
                    return path;
                }
                if within.contains(&to) && !came_from.contains_key(&to) {
                    came_from.insert(to, node);
                    queue.push_back(to);
                }
            }
        }
    }
    Vec::new()
}

/// Returns the nodes in an order in which each follows all its dependencies. Nodes on a cycle, or depending on one, are missing.
#[must_use]
pub fn topological(nodes: usize, dependencies: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let needs: Vec<Vec<usize>> = (0..nodes).map(dependencies).collect();
    let mut open: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut dependents = vec![Vec::new(); nodes];
    for (node, of) in needs.iter().enumerate() {
        for &dependency in of {
            dependents[dependency].push(node);
        }
    }
    let mut ready: VecDeque<usize> = (0..nodes).filter(|&n| open[n] == 0).collect();
    let mut order = Vec::with_capacity(nodes);
    while let Some(node) = ready.pop_front() {
        order.push(node);
        for &dependent in &dependents[node] {
            open[dependent] -= 1;
            if open[dependent] == 0 {
                ready.push_back(dependent);
            }
        }
    }
    order
}

/// Returns the chain of dependencies with the greatest sum of durations, first node first.
#[must_use]
pub fn longest_path(
    nodes: usize,
    dependencies: impl Fn(usize) -> Vec<usize>,
    duration: impl Fn(usize) -> Duration,
) -> (Duration, Vec<usize>) {
    let mut best: Vec<Option<(Duration, Option<usize>)>> = vec![None; nodes];
    for node in topological(nodes, &dependencies) {
        let before = dependencies(node)
            .into_iter()
            .filter_map(|d| best[d].map(|(length, _)| (length, d)))
            .max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        best[node] = Some((
            duration(node) + before.map_or(Duration::ZERO, |(length, _)| length),
            before.map(|(_, node)| node),
        ));
    }
    let end = (0..nodes)
        .filter_map(|n| best[n].map(|(length, _)| (length, n)))
        .max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let Some((length, mut at)) = end else { return (Duration::ZERO, Vec::new()) };
    let mut path = vec![at];
    while let Some((_, Some(before))) = best[at] {
        path.push(before);
        at = before;
    }
    path.reverse();
    (length, path)
}
