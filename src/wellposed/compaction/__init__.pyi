from wellposed.compaction.compacting import CompactPlan as CompactPlan
from wellposed.compaction.compacting import CompactRow as CompactRow
from wellposed.compaction.compacting import compact as compact
from wellposed.compaction.compacting import plan_compact as plan_compact
from wellposed.compaction.heads import CompactAttention as CompactAttention
