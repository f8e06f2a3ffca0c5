import "../../frozenkit/theme/theme.css";
import "./index.css";
